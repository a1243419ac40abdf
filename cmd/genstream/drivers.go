package main

// Buckets that an operator can name by URL, beside directories and memory.
import _ "gocloud.dev/blob/s3blob"
