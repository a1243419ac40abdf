//go:build !cluster

package main

import "time"

// How TestClusterScenarios runs, if the environment does not say: scenarios, how
// long each has trouble, and how many run at a time. -tags cluster has all of them.
const (
	scenarios       = 1
	scenarioSpan    = 10 * time.Second
	scenariosAtOnce = 1
)
