package schema

const (
	// MaxElements bounds a multi-valued attribute.
	MaxElements = 1000
	// MaxDocument bounds, in bytes, the stored document of a resource without its edges.
	// It keeps a page of the largest documents small.
	MaxDocument = 128 << 10
	// MaxName bounds, in bytes, the strings that are indexed.
	MaxName = 1024
)

// maxNumber bounds the text of a number, in bytes, because PostgreSQL parses it for comparisons.
const maxNumber = 64

const (
	maxTime   = 40           // bytes
	maxOffset = 15 * 60 * 60 // seconds
)
