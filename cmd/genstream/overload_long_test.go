//go:build overload

package main

import "time"

// How long TestOverload asks for too much, and waits for what it holds to be given
// back: connections that nobody uses are kept for two minutes.
const (
	overloadFor  = time.Minute
	overloadRest = 130 * time.Second
)
