package blob

// For tests that need names and ports of their own.
var NewFetcherWith = newFetcher
