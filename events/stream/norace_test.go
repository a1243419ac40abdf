//go:build !race

package stream_test

// race says that the race detector is in the program.
const race = false
