//go:build disk

package main

// diskRuns is how many runs TestDiskFull makes, if GENSTREAM_DISK_RUNS does not say.
const diskRuns = 42
