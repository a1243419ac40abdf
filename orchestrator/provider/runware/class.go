package runware

import (
	"slices"
	"strings"

	"github.com/genstream/genstream/events"
)

// rule is one line of the table of codes.
type rule struct {
	class    events.Class
	codes    []string
	prefixes []string
	suffixes []string
	contains []string
}

// rules are tried in order. There are hundreds of codes, which change; the
// official SDK sorts them by such patterns, and this table follows it, but for
// timeoutProvider, which the documentation names and the SDK's pattern misses.
func rules() []rule {
	return []rule{
		{class: events.Quota, codes: []string{"quotaExceeded", "paymentRequired"}, contains: []string{"Credits", "Quota", "Balance"}},
		{class: events.RateLimit, codes: []string{"rateLimitExceeded"}, contains: []string{"RateLimit"}},
		{class: events.Safety, codes: []string{
			"contentPolicyViolation", "providerContentPolicyViolation", "sensitiveContentDetected", "unsafeContentDetected",
			"nsfwContentDetected", "promptBlocked", "imageBlocked", "moderationFailed",
		}},
		{class: events.Auth, codes: []string{
			"unauthorized", "forbidden", "permissionDenied", "insufficientPermissions", "authenticationFailed", "authFailed",
			"authTimeout", "invalidAuthentication", "invalidCredentials", "missingAuthentication",
			"tokenExpired", "tokenInvalid", "tokenMissing", "tokenRevoked",
			"accountSuspended", "accountDisabled", "organizationSuspended", "organizationDisabled",
			"workspaceSuspended", "workspaceDisabled",
		}, contains: []string{"ApiKey"}},
		{class: events.Timeout, codes: []string{"timeout", "timeoutProvider"}, contains: []string{"Timeout"}},
		{class: events.NotFound, codes: []string{"taskCancelled", "taskFailedOrNotFound", "unknownModel"}, suffixes: []string{"NotFound", "Expired"}},
		{class: events.Server, codes: []string{
			"internalServerError", "serviceUnavailable", "serverUnavailable", "standardError", "unknownError", "undefinedError",
			"defaultError", "unrecognizedResponse", "errorRetrievingAccountManagement",
		}},
		{class: events.Inference, codes: []string{
			"inferenceError", "processingFailed", "taskFailed", "downloadFailed", "uploadFailed", "noAvailableServer",
			"modelUnavailable", "modelDisabled", "modelNotReady", "mediaStorageFileCouldNotBeMoved",
		}, prefixes: []string{"provider"}},
		{class: events.Validation, codes: []string{
			"unknownParameter", "incompatibleParameters", "mismatchProviderSettingsProvider", "unknownProviderSettingsProvider",
			"transparentModelMismatch", "modelOwnershipValidationError", "modelAlreadyExists", "validationFailed",
		}, prefixes: []string{"invalid", "missing", "conflict", "duplicate", "unsupported", "value", "array", "max"}},
	}
}

// classOf sorts a code of Runware.
func classOf(code string) events.Class {
	for _, r := range rules() {
		if slices.Contains(r.codes, code) ||
			slices.ContainsFunc(r.prefixes, func(s string) bool { return strings.HasPrefix(code, s) }) ||
			slices.ContainsFunc(r.suffixes, func(s string) bool { return strings.HasSuffix(code, s) }) ||
			slices.ContainsFunc(r.contains, func(s string) bool { return strings.Contains(code, s) }) {
			return r.class
		}
	}
	return events.Unknown
}

// classOfHTTP is the class of an error that brought no code.
func classOfHTTP(code int) events.Class {
	switch {
	case code == 401 || code == 403:
		return events.Auth
	case code == 402:
		return events.Quota
	case code == 429:
		return events.RateLimit
	case code == 408 || code == 504:
		return events.Timeout
	case code >= 500:
		return events.Server
	case code >= 400:
		return events.Validation
	}
	return events.Unknown
}

// notNow says whether a code means that the task was not taken for want of room.
func notNow(code string) bool {
	switch code {
	case "noAvailableServer", "modelNotReady", "serviceUnavailable", "serverUnavailable":
		return true
	}
	return classOf(code) == events.RateLimit
}

// missingTask says whether a code may mean that no such task is known.
// taskFailedOrNotFound means that, or that it failed.
func missingTask(code string) bool {
	c := strings.ToLower(code)
	return strings.Contains(c, "task") && (strings.Contains(c, "notfound") || strings.HasPrefix(c, "unknown"))
}
