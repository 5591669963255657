package main

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/layer"
)

// TestProfileTooLarge finds that whoever gives too much is told that it was his doing.
func TestProfileTooLarge(t *testing.T) {
	mux := http.NewServeMux()
	handleProfiles(mux, nil, slog.New(slog.DiscardHandler))
	w := httptest.NewRecorder()
	body := bytes.NewReader(make([]byte, layer.MaxProfileBlock+1))
	mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPut, profilePath+"?image=x", body))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "too large") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
