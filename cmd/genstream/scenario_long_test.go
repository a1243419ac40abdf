//go:build cluster

package main

import "time"

// How TestClusterScenarios runs, if the environment does not say: scenarios, how
// long each has trouble, and how many run at a time.
const (
	scenarios       = 27 // one of each kind
	scenarioSpan    = time.Minute
	scenariosAtOnce = 2
)
