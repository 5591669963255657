package origin

import (
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
)

// redirectAge is how long a redirect is followed again without asking, if it does not say.
const redirectAge = time.Minute

// A redirect is where a registry sends whoever wants a blob.
type redirect struct {
	url    string
	client *http.Client
	until  time.Time
}

func (r *repository) redirected(d digest.Digest) (redirect, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	to, ok := r.redirects[d]
	if ok && time.Now().After(to.until) {
		delete(r.redirects, d)
		ok = false
	}
	return to, ok
}

func (r *repository) forget(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.redirects, d)
}

// expiry is until when a signed URL holds, less a few seconds, as the object stores of Amazon, Google, Microsoft and those
// like them write it. Where none is written, it is soon.
func expiry(u *url.URL, now time.Time) time.Time {
	const margin = 10 * time.Second
	q := u.Query()
	for _, vendor := range []string{"X-Amz-", "X-Goog-"} {
		begin, err := time.Parse("20060102T150405Z", q.Get(vendor+"Date"))
		if err != nil {
			continue
		}
		if lasts, err := time.ParseDuration(q.Get(vendor+"Expires") + "s"); err == nil {
			return begin.Add(lasts - margin)
		}
	}
	if until, err := time.Parse(time.RFC3339, q.Get("se")); err == nil {
		return until.Add(-margin)
	}
	if seconds, err := time.ParseDuration(q.Get("Expires") + "s"); err == nil {
		return time.Unix(0, 0).Add(seconds - margin)
	}
	return now.Add(redirectAge)
}
