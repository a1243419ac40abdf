package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// Webhook asks the public address of the ingress as a provider would. With a token
// that cannot be right, exactly 404 is right, from the ingress itself and without
// a redirect: providers follow none. With a token that signed makes for a
// generation that nobody has ever requested, 503 is right (the ingress takes the log to
// be behind), and proves that its keys are these, and that the path arrives. signed
// is nil if the keys are not known here.
func Webhook(ctx context.Context, base, name string, signed func(events.ID) string) []Finding {
	const check = "webhook"
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return []Finding{broken(check, "such as https://hooks.example.com", "%q is not the URL of a server", base)}
	}
	all := []Finding{ask(ctx, base, name)}
	if signed != nil && all[0].Level != Broken {
		all = append(all, prove(ctx, base, signed(events.ID(uuid.Must(uuid.NewV7()).String()))))
	}
	if u.Scheme == "http" && !local(u.Hostname()) {
		all = append(all, warning(check, "put TLS in front of it: https://…", "%s is not encrypted, and the address holds the secret of each generation", base))
	}
	return all
}

// ask makes the request, and judges the answer.
func ask(ctx context.Context, base, name string) Finding {
	const check = "webhook"
	started := time.Now()
	res, body, err := post(ctx, strings.TrimRight(base, "/")+"/hooks/"+url.PathEscape(name)+"/"+uuid.Must(uuid.NewV7()).String()+"/"+strings.Repeat("0", 32))
	if err != nil {
		return broken(check, "is the ingress up, and does the name lead to it from outside?", "%s: %v", base, cause(err))
	}
	took := time.Since(started)
	switch {
	case res.StatusCode/100 == 3:
		return broken(check, "name in --webhook-url the address that it leads to: a provider follows no redirect", "%s answers %d, and leads to %s", base, res.StatusCode, where(res.Header.Get("Location")))
	case res.StatusCode/100 == 2:
		return broken(check, "something else answers there: every webhook would be lost", "%s answers %d to a token that cannot be right", base, res.StatusCode)
	case res.StatusCode != http.StatusNotFound:
		return broken(check, "the proxy must pass POST /hooks/… on to --hooks-listen, without a login", "%s answers %d, not 404", base, res.StatusCode)
	case body != "not found\n" || res.Header.Get("Cache-Control") != "no-store":
		return broken(check, "the proxy must pass POST /hooks/… on to --hooks-listen, with its path as it is", "%s answers 404, but it is not the ingress that does", base)
	case took > 2*time.Second:
		return warning(check, "Runware gives 5 s in all", "%s answers as it should, in %s", base, short(took))
	}
	return ok(check, "%s answers as it should, in %s", base, short(took))
}

// prove sends a webhook that is genuine but for its generation.
func prove(ctx context.Context, base, address string) Finding {
	const check = "webhook"
	res, _, err := post(ctx, address)
	switch {
	case err != nil:
		return broken(check, "is the ingress up, and does the name lead to it from outside?", "%s: %v", base, cause(err))
	case res.StatusCode == http.StatusServiceUnavailable:
		return ok(check, "the ingress there has the same webhook keys")
	case res.StatusCode == http.StatusNotFound:
		return broken(check, "give all processes the same --webhook-keys, and have the proxy pass the path on as it is", "%s refuses a token that is right: it has other webhook keys, or does not see the whole path", base)
	}
	return broken(check, "the proxy must pass POST /hooks/… on to --hooks-listen", "%s answers %d to a token that is right for a generation that is not there, not 503", base, res.StatusCode)
}

// post sends an empty webhook. The body is the answer's first 64 bytes.
func post(ctx context.Context, address string) (res *http.Response, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader("{}"))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if res, err = client.Do(req); err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64)) // what cannot be read is not the ingress's answer
	return res, string(b), nil
}

// where is a redirect's target without its query and its path's end: the token is in it.
func where(location string) string {
	u, err := url.Parse(location)
	if err != nil || location == "" {
		return "nowhere"
	}
	path, _, _ := strings.Cut(u.Path, "/hooks/")
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: path}).String()
}

func local(host string) bool {
	return host == "localhost" || strings.HasPrefix(host, "127.") || host == "::1"
}

// cause is an error of the HTTP client without the URL, which its own text repeats.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Provider asks about a task that nobody has ever sent: "unknown" means that the
// key is good, and nothing is bought.
func Provider(ctx context.Context, name string, p provider.Provider) Finding {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	const check = "provider"
	started := time.Now()
	answer, err := p.Look(ctx, []string{uuid.NewString()})
	if err == nil {
		defer answer.Reply.Close()
		return ok(check, "%s takes the key, and answers in %s", name, short(time.Since(started)))
	}
	e := provider.AsError(err)
	said := fmt.Sprintf("%s: %s: %s", name, e.Err.Code, e.Err.Message)
	switch e.Kind {
	case provider.Account:
		return broken(check, "check the key and the account's credit; until then generations wait until their deadline", "%s", said)
	case provider.Unreachable:
		return broken(check, "is the provider's address right, and may this machine reach it?", "%s", said)
	case provider.Busy:
		return warning(check, "it will pass; if not, ask for a higher limit, or lower per_second", "%s", said)
	}
	return warning(check, "try again; then look at the provider's own page", "%s", said)
}
