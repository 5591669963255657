package result

import (
	"fmt"
	"math"
	"strconv"
)

// Format writes a value for people: two or three digits, in a unit of fitting size.
func Format(value float64, unit string) string {
	switch unit {
	case "s":
		return scaled(value, "s", []step{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}})
	case "B":
		return scaled(value, "B", []step{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}})
	case "B/s":
		return scaled(value, "B/s", []step{{1e9, "GB/s"}, {1e6, "MB/s"}, {1e3, "kB/s"}, {1, "B/s"}})
	case "":
		return digits(value)
	case "%":
		return digits(value) + " %"
	}
	return digits(value) + " " + unit
}

// A step is a unit and its size, largest first in a list.
type step struct {
	size float64
	unit string
}

func scaled(value float64, unit string, steps []step) string {
	if value == 0 {
		return "0 " + unit
	}
	for _, s := range steps {
		// 999.6 is better written as 1.00 of the next size.
		if math.Abs(value) >= s.size*0.9995 {
			return digits(value/s.size) + " " + s.unit
		}
	}
	last := steps[len(steps)-1]
	return digits(value/last.size) + " " + last.unit
}

// digits writes three significant digits, two of what is below 1, and whole numbers as they are.
func digits(v float64) string {
	abs := math.Abs(v)
	switch {
	case v == math.Trunc(v) && abs < 1e6:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case abs >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case abs >= 0.0995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case abs >= 0.00995:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// FormatRatio writes a ratio as ×0.18.
func FormatRatio(r float64) string {
	if math.Abs(r) >= 0.0995 && math.Abs(r) < 9.995 {
		return fmt.Sprintf("×%.2f", r)
	}
	return "×" + digits(r)
}

// FormatSpread writes a spread as what runs lie above or below the median by: ±3 %.
func FormatSpread(spread float64) string {
	half := 100 * spread / 2
	if half < 1 {
		return "±<1 %"
	}
	return fmt.Sprintf("±%.0f %%", half)
}
