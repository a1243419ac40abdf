//go:build corrupt

package main

// corruptions is how many cases TestCorrupt tries, if GENSTREAM_CORRUPTIONS does not say.
const corruptions = 300
