package compare

import (
	_ "embed"
	"html/template"
	"io"
)

//go:embed report.html
var page string

// pageTemplate escapes for the place where something stands: paths in images can be anything.
var pageTemplate = template.Must(template.New("report").Parse(page))

// WriteHTML writes one page that needs nothing else.
func (r *Report) WriteHTML(w io.Writer) error {
	return pageTemplate.Execute(w, map[string]any{"Report": r, "Names": r.Names(), "Words": levelWords})
}
