//go:build !race

package main

// race says that the race detector is in the program.
const race = false
