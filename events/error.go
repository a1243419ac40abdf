package events

// Error is why an output, or a whole generation, has no artifact.
type Error struct {
	Code    string `json:"code"`    // the provider's, or one of ours (see the Code constants); at most MaxCode bytes as encoded
	Message string `json:"message"` // for a person; at most MaxNote bytes as encoded
	Class   Class  `json:"class,omitempty"`
}

// Class sorts the hundreds of codes of a provider into what can be done about them.
type Class string

// The classes. Validation, Safety and NotFound are for good; Auth and Quota are
// about the account, not about the generation; the rest may pass.
const (
	Validation Class = "validation" // the request cannot be served as it is
	Safety     Class = "safety"     // refused or withheld by a content filter
	NotFound   Class = "not_found"  // no such model, or the provider knows no such task
	Auth       Class = "auth"       // key missing, wrong or not permitted
	Quota      Class = "quota"      // no credit left
	RateLimit  Class = "rate_limit" // too many requests just now
	Timeout    Class = "timeout"    // the provider gave up waiting
	Server     Class = "server"     // the provider's own fault
	Inference  Class = "inference"  // the model or its host failed
	Connection Class = "connection" // it could not be reached
	Unknown    Class = "unknown"    // none of the above is known to fit
)

// Retryable says whether the same inference may succeed if it is tried again.
func (c Class) Retryable() bool {
	switch c {
	case RateLimit, Timeout, Server, Inference, Connection:
		return true
	}
	return false
}

// Account says whether the error is about the account: it fails no generation,
// and nothing else is worth sending until it is mended.
func (c Class) Account() bool { return c == Auth || c == Quota }

// Codes that genstream itself gives.
const (
	CodeDeadline    = "deadline"         // the deadline passed before this output was there
	CodeLost        = "lost"             // the provider took the task, and says now that it knows none such
	CodeFetchGone   = "file_gone"        // the output's file cannot be had any more
	CodeFetchSize   = "file_too_large"   // the output's file is over the size limit
	CodeFetchType   = "file_type"        // the output's file is of no type that we keep
	CodeFetchForbid = "file_address"     // the output's URL points where nothing is fetched from
	CodeFetchFail   = "file_unreachable" // the output's file could not be had before the deadline
	CodeInput       = "input"            // the input cannot be sent
)
