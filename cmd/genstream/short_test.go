//go:build !long

package main

// long would have the tests of other people's tools build or fetch them, with
// -tags long. Without it they run where a tool is there already.
const long = false
