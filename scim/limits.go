package scim

const (
	// maxElements bounds a multi-valued attribute.
	maxElements = 1000
	// maxDocument bounds, in bytes, the stored document of a resource without its edges.
	// It keeps a page of the largest documents small.
	maxDocument = 128 << 10
	// maxName bounds, in bytes, the strings that are indexed.
	maxName = 1024
)

// maxNumber bounds the text of a number, in bytes, because PostgreSQL parses it for comparisons.
const maxNumber = 64

const (
	maxTime   = 40           // bytes
	maxOffset = 15 * 60 * 60 // seconds
)
