//go:build long

package main

// long has the tests of other people's tools build or fetch them: minutes.
const long = true
