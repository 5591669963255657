package report

import (
	"fmt"
	"html"
	"strings"
)

// A colour is one in light and one in dark, both with enough contrast there.
type colour struct{ light, dark string }

// colours of the systems can be told apart by people who do not see all colours (they
// are those of Okabe and Ito, lighter on dark); what people run today is grey, and ipcs
// has the strongest.
var colours = map[string]colour{
	"overlayfs":        {"#8c959f", "#8b949e"},
	"overlayfs-zstd":   {"#b4bcc4", "#59626c"},
	"erofs":            {"#009e73", "#2fbf93"},
	"ipcs":             {"#d55e00", "#f0792b"},
	"ipcs-profile":     {"#f0e442", "#f5ec7a"},
	"ipcs-kubo":        {"#e69f00", "#e6a817"},
	"ipcs-registry":    {"#56b4e9", "#6cc0f0"},
	"stargz":           {"#0072b2", "#3d9be0"},
	"stargz-optimized": {"#cc79a7", "#d98fb9"},
	"tar":              {"#8c959f", "#8b949e"},
	"convert":          {"#d55e00", "#f0792b"},
}

// spare is for systems without one of their own.
var spare = colour{"#6e5494", "#a78bda"}

// svg is a drawing that is being written. It needs no script and no font, is transparent,
// and follows the reader's colour scheme.
type svg struct {
	body          strings.Builder
	width, height float64
	used          []string // systems that are drawn
}

const style = `text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#1f2328}
.h{font-size:14px;font-weight:600}.b{font-weight:600}.m{fill:#59636e}
.g{stroke:#d1d9e0;stroke-width:1}.d{stroke-dasharray:3 3}
`

const styleDark = `text{fill:#e6edf3}.m{fill:#9198a1}.g{stroke:#3d444d}
`

// String returns the whole file. The description is for those who cannot see it.
func (s *svg) String(title, description string) string {
	var light, dark strings.Builder
	for _, name := range unique(s.used) {
		c, ok := colours[name]
		if !ok {
			c = spare
		}
		fmt.Fprintf(&light, ".%s{fill:%s;stroke:%s}\n", class(name), c.light, c.light)
		fmt.Fprintf(&dark, ".%s{fill:%s;stroke:%s}\n", class(name), c.dark, c.dark)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img" aria-labelledby="title desc">
<title id="title">%s</title>
<desc id="desc">%s</desc>
<style>
%s%s@media (prefers-color-scheme: dark){
%s%s}
</style>
%s</svg>
`, s.width, s.height, s.width, s.height, html.EscapeString(title), html.EscapeString(description),
		style, light.String(), styleDark, dark.String(), s.body.String())
}

// class is the name of a system's class in the style sheet.
func class(system string) string { return "s-" + slug(system) }

// text writes a text; anchor is start, middle or end, and class one or more of the style
// sheet's.
func (s *svg) text(x, y float64, anchor, class, text string) {
	if class != "" {
		class = fmt.Sprintf(` class="%s"`, class)
	}
	fmt.Fprintf(&s.body, `<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, class, html.EscapeString(text))
}

func (s *svg) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(&s.body, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

// bar draws one of a system.
func (s *svg) bar(x, y, width, height float64, system string) {
	s.used = append(s.used, system)
	fmt.Fprintf(&s.body, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" class="%s" stroke="none"/>`+"\n",
		x, y, max(width, 1.5), height, class(system))
}

// curve draws the line of a system through points.
func (s *svg) curve(points [][2]float64, system string) {
	s.used = append(s.used, system)
	width := 2.0
	if ours(system) {
		width = 3
	}
	var path strings.Builder
	for _, p := range points {
		fmt.Fprintf(&path, "%.1f,%.1f ", p[0], p[1])
	}
	fmt.Fprintf(&s.body, `<g class="%s"><polyline points="%s" stroke-width="%.0f" style="fill:none"/>`,
		class(system), strings.TrimSpace(path.String()), width)
	for _, p := range points {
		fmt.Fprintf(&s.body, `<circle cx="%.1f" cy="%.1f" r="%.1f"/>`, p[0], p[1], width+0.5)
	}
	s.body.WriteString("</g>\n")
}

// emphasis is the class of a system's name.
func emphasis(system string) string {
	if ours(system) {
		return "b"
	}
	return ""
}
