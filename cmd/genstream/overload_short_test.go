//go:build !overload

package main

import "time"

// How long TestOverload asks for too much. It does not wait for what it holds.
const (
	overloadFor  = 2500 * time.Millisecond
	overloadRest = 0
)
