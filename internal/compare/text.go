package compare

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Style says how text is written.
type Style struct {
	Width int  // columns of the terminal; 0: as many as it takes
	Color bool // for what matters
}

// levelWords say what a level is.
var levelWords = map[string]string{
	LevelBlob: "compressed layers", LevelTar: "uncompressed layers", LevelFile: "files", LevelBlock: "blocks of 1 MiB", LevelPart: "blocks of 256 KiB", LevelChunk: "256 KiB chunks of compressed layers",
}

// maxColumns is how many images a matrix in text has.
const maxColumns = 12

// Size writes bytes as people read them.
func Size(n int64) string {
	if n < 0 {
		return "?"
	}
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, u := float64(n), 0
	for v >= 999.5 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	switch {
	case u == 0:
		return fmt.Sprintf("%d B", n)
	case v < 10:
		return fmt.Sprintf("%.1f %s", v, units[u])
	}
	return fmt.Sprintf("%.0f %s", v, units[u])
}

// percent is a share of a whole.
func percent(part, whole int64) string {
	if whole <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(whole))
}

// A text writes a report for people.
type text struct {
	*Report
	w     io.Writer
	style Style
	names []string
	err   error
}

// WriteText writes the report as tables.
func (r *Report) WriteText(w io.Writer, style Style) error {
	t := &text{Report: r, w: w, style: style, names: r.Names()}
	t.images()
	t.levels()
	t.matrix()
	t.sets()
	t.totals()
	t.largest("The largest files that images share", r.Shared)
	t.largest("The largest files that one image has", r.Unshared)
	for _, f := range r.Failed {
		t.printf("\n%s is left out: %s\n", clean(f.Ref), clean(f.Error))
	}
	return t.err
}

func (t *text) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

func (t *text) title(s string) {
	t.printf("\n")
	if t.style.Color {
		t.printf("\x1b[1m")
	}
	t.paragraph(s)
	if t.style.Color {
		t.printf("\x1b[0m")
	}
}

// leastFirst is how narrow the first column may become.
const leastFirst = 14

// table writes rows whose first column is on the left and the others on the right. Where they are too wide for the terminal, the first column loses the middle of what is in it, and
// then columns are left out, from the right.
func (t *text) table(rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], columns(cell))
		}
	}
	rest := 0
	for _, w := range widths[1:] {
		rest += w + 2
	}
	for t.style.Width > 0 && len(widths) > 2 && min(widths[0], leastFirst)+rest > t.style.Width {
		rest -= widths[len(widths)-1] + 2
		widths = widths[:len(widths)-1]
	}
	if t.style.Width > 0 && widths[0]+rest > t.style.Width {
		widths[0] = max(t.style.Width-rest, leastFirst)
	}
	for _, row := range rows {
		line := pad(shorten(row[0], widths[0]), widths[0])
		for i, cell := range row[1:min(len(row), len(widths))] {
			line += "  " + strings.Repeat(" ", widths[i+1]-columns(cell)) + cell
		}
		t.printf("%s\n", strings.TrimRight(line, " "))
	}
}

// paragraph writes words in lines that fit.
func (t *text) paragraph(s string) {
	width := t.style.Width
	if width == 0 {
		width = 100
	}
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && columns(line)+1+columns(word) > width {
			t.printf("%s\n", line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	t.printf("%s\n", line)
}

func columns(s string) int { return len([]rune(s)) }

func pad(s string, width int) string { return s + strings.Repeat(" ", max(width-columns(s), 0)) }

// shorten leaves out the middle of what is too long.
func shorten(s string, width int) string {
	r := []rune(s)
	if len(r) <= width || width < 3 {
		return s
	}
	front := (width - 1) / 3
	return string(r[:front]) + "…" + string(r[len(r)-(width-1-front):])
}

func clean(s string) string { return Clean(s) }

// Clean is text that cannot steer a terminal.
func Clean(s string) string {
	q := strconv.Quote(s)
	return strings.ReplaceAll(strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`), `\\`, `\`)
}

// number names an image in tables of all.
func number(i int) string { return "#" + strconv.Itoa(i+1) }

func (t *text) images() {
	rows := [][]string{{"Image", "", "layers", "compressed", "files", "content", "copies in it"}}
	for i, im := range t.Images {
		blobs := int64(0)
		for _, l := range im.Layers {
			blobs = sumKnown(blobs, l.Blob)
		}
		name := clean(t.names[i])
		if im.IPCS {
			name += " (ipcs)"
		}
		rows = append(rows, []string{name, number(i), strconv.Itoa(len(im.Layers)), Size(blobs), strconv.FormatInt(im.Files.Count, 10), Size(im.Files.Bytes), Size(im.Copies.Bytes)})
	}
	t.table(rows)
}

// levels writes how much of each level is there, and how much is left.
func (t *text) levels() {
	t.title("What they share")
	rows := [][]string{{"By", "all", "each once", "shared away"}}
	for _, l := range t.Levels {
		name := levelWords[l.Name]
		if l.Partial {
			name += " (not known of all)"
		}
		rows = append(rows, []string{name, Size(l.Before.Bytes), Size(l.After.Bytes), t.mark(l)})
	}
	t.table(rows)
	if len(t.Images) < 2 {
		return
	}
	t.title("Of each image, bytes that no other has")
	head := []string{""}
	for _, l := range t.Levels {
		head = append(head, map[string]string{LevelBlob: "compressed", LevelTar: "layers", LevelFile: "files", LevelBlock: "1 MiB", LevelPart: "256 KiB", LevelChunk: "chunks"}[l.Name])
	}
	rows = [][]string{head}
	for i := range t.Images {
		row := []string{clean(t.names[i])}
		for _, l := range t.Levels {
			own := l.Images[i]
			if l.Partial && t.Images[i].IPCS {
				row = append(row, "?")
				continue
			}
			row = append(row, percent(own.Unique.Bytes, own.Unique.Bytes+own.Shared.Bytes))
		}
		rows = append(rows, row)
	}
	t.table(rows)
}

// mark is how much of a level is shared.
func (t *text) mark(l Level) string { return percent(l.Before.Bytes-l.After.Bytes, l.Before.Bytes) }

// matrix writes what it takes to get one image where another is.
func (t *text) matrix() {
	n := len(t.Images)
	if n < 2 {
		return
	}
	for _, m := range []struct {
		title string
		of    func(p Pair) string
	}{
		{"To pull from a registry (compressed layers), where the image of the column is", func(p Pair) string { return Size(p.Registry) }},
		{"To pull with ipcs (as peers send it), where the image of the column is", wire},
	} {
		t.title(m.title)
		shown := min(n, maxColumns)
		if t.style.Width > 0 { // a number and a size take ten columns
			shown = max(1, min(shown, (t.style.Width-leastFirst)/10))
		}
		head := []string{""}
		for here := range shown {
			head = append(head, number(here))
		}
		rows := [][]string{head}
		for get := range n {
			row := []string{number(get) + " " + clean(t.names[get])}
			for here := range shown {
				if here == get {
					row = append(row, "·")
					continue
				}
				row = append(row, m.of(t.pair(here, get)))
			}
			rows = append(rows, row)
		}
		t.table(rows)
		if shown < n {
			t.paragraph(fmt.Sprintf("(the first %d of %d columns; --json, --csv and --html have all)", shown, n))
		}
	}
}

// wire is what peers send, or what that is at most.
func wire(p Pair) string {
	if p.Wire < 0 {
		return "≤ " + Size(p.Raw)
	}
	return Size(p.Wire)
}

// pair returns what it takes to get one image where another is.
func (r *Report) pair(here, get int) Pair {
	i := here*(len(r.Images)-1) + get
	if get > here {
		i--
	}
	return r.Pairs[i]
}

// sets writes the sets of images that share most, by file.
func (t *text) sets() {
	for _, l := range t.Levels {
		if l.Name != LevelFile || len(l.Sets) == 0 {
			continue
		}
		t.title("Files that exactly these images have")
		rows := [][]string{{"", "files", "bytes"}}
		for _, s := range l.Sets[:min(len(l.Sets), 10)] {
			rows = append(rows, []string{numbers(s.Images, len(t.Images)), strconv.FormatInt(s.Count, 10), Size(s.Bytes)})
		}
		t.table(rows)
		if more := len(l.Sets) - 10; more > 0 {
			t.printf("(and %d other sets)\n", more)
		}
	}
}

// maxNumbers is how many images of a set are named.
const maxNumbers = 8

// numbers names the images of a set.
func numbers(images []int, all int) string {
	if len(images) == all && all > 1 {
		return "all"
	}
	var names []string
	for _, i := range images {
		names = append(names, number(i))
	}
	if n := len(names); n > maxNumbers {
		return fmt.Sprintf("%s … (%d images)", strings.Join(names[:3], " "), n)
	}
	return strings.Join(names, " ")
}

func (t *text) totals() {
	d := t.Disk
	t.title("On one host, all of them, about")
	t.printf("overlayfs  %s (%s compressed, %s unpacked)\n", Size(d.Blobs+d.Unpacked), Size(d.Blobs), Size(d.Unpacked))
	t.printf("ipcs       %s (%s of files, %s of indexes)\n", Size(d.Files+d.Indexes), Size(d.Files), Size(d.Indexes))
	if x := t.Touched; x.Files.Count > 0 {
		t.printf("\n")
		t.paragraph(fmt.Sprintf("%d files of %s are the same at the same path and differ in something else: %d in owner, mode or attributes, %d in their date.", x.Files.Count, Size(x.Files.Bytes), x.Owner.Count, x.Date.Count))
	}
}

func (t *text) largest(title string, files []File) {
	if len(files) == 0 {
		return
	}
	t.title(title)
	rows := [][]string{}
	for _, f := range files[:min(len(files), 10)] {
		rows = append(rows, []string{clean(f.Path), numbers(f.Images, len(t.Images)), Size(f.Bytes)})
	}
	t.table(rows)
}

// WriteCSV writes what any two images share: a line for each ordered pair and level, and the bytes to pull.
func (r *Report) WriteCSV(w io.Writer) error {
	out, names := csv.NewWriter(w), r.Names()
	_ = out.Write([]string{"here", "here_image", "get", "get_image", "level", "shared_count", "shared_bytes", "get_count", "get_bytes", "registry_bytes", "raw_bytes", "wire_bytes"})
	for _, p := range r.Pairs {
		for _, l := range r.Levels {
			s, of := p.Shared[l.Name], l.Images[p.Get]
			row := []string{strconv.Itoa(p.Here), names[p.Here], strconv.Itoa(p.Get), names[p.Get], l.Name}
			for _, v := range []int64{s.Count, s.Bytes, of.Unique.Count + of.Shared.Count, of.Unique.Bytes + of.Shared.Bytes, p.Registry, p.Raw, p.Wire} {
				cell := ""
				if v >= 0 {
					cell = strconv.FormatInt(v, 10)
				}
				row = append(row, cell)
			}
			_ = out.Write(row)
		}
	}
	out.Flush()
	return out.Error() // of all writes
}
