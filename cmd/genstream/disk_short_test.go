//go:build !disk

package main

// diskRuns is how many runs TestDiskFull makes: one of each mode.
const diskRuns = 3
