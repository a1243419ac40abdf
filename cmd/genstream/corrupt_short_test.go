//go:build !corrupt

package main

// corruptions is how many cases TestCorrupt tries.
const corruptions = 24
