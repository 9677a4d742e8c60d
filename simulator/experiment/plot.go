package experiment

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Series is a line of a plot.
type Series struct {
	Name string
	X, Y []float64
	Step bool // constant between points, as a cumulative distribution is
}

// Plot is a line chart.
type Plot struct {
	Title, XLabel, YLabel string
	Series                []Series
}

// A palette that colour-blind readers can tell apart (Okabe and Ito), and dashes for more lines than colours.
var (
	palette = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}
	dashes  = []string{"", "7 4", "2 3", "9 3 2 3"}
)

const (
	plotWidth, plotHeight  = 860, 520
	plotLeft, plotTop      = 78, 44
	plotRight, plotBottom  = 20, 60
	maxSeries              = 28 // that palette and dashes tell apart
	legendRow, legendWidth = 18, 26
)

// SVG draws the chart. The same data give the same bytes.
func (p Plot) SVG(w io.Writer) error {
	if len(p.Series) == 0 {
		return fmt.Errorf("experiment: nothing to plot")
	}
	if len(p.Series) > maxSeries {
		return fmt.Errorf("experiment: %d lines in one plot, want at most %d; sweep less or plot part of it", len(p.Series), maxSeries)
	}
	x0, x1, y0, y1 := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range p.Series {
		for i := range s.X {
			x0, x1 = min(x0, s.X[i]), max(x1, s.X[i])
			y0, y1 = min(y0, s.Y[i]), max(y1, s.Y[i])
		}
	}
	if !(x0 <= x1) || math.IsInf(x1-x0, 0) || math.IsNaN(y1-y0) || math.IsInf(y1-y0, 0) {
		return fmt.Errorf("experiment: the lines of the plot have no finite points")
	}
	if y0 >= 0 && y1 <= 1.0000001 {
		y0, y1 = 0, 1 // a share
	}
	xt, yt := ticks(x0, x1), ticks(y0, y1)
	x0, x1 = min(x0, xt[0]), max(x1, xt[len(xt)-1])
	y0, y1 = min(y0, yt[0]), max(y1, yt[len(yt)-1])
	sx := func(x float64) float64 {
		return plotLeft + (x-x0)/(x1-x0)*(plotWidth-plotLeft-plotRight)
	}
	sy := func(y float64) float64 {
		return plotHeight - plotBottom - (y-y0)/(y1-y0)*(plotHeight-plotTop-plotBottom)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n",
		plotWidth, plotHeight, plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, plotHeight)
	for _, x := range xt {
		fmt.Fprintf(&b, `<path d="M%.1f %dV%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
			sx(x), plotTop, plotHeight-plotBottom, sx(x), plotHeight-plotBottom+18, label(x))
	}
	for _, y := range yt {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, sy(y), plotWidth-plotRight, plotLeft-8, sy(y)+4, label(y))
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" stroke="black" fill="none"/>`+"\n", plotLeft, plotTop, plotHeight-plotBottom, plotWidth-plotRight)
	fmt.Fprintf(&b, `<text x="%d" y="26" font-size="16">%s</text>`+"\n", plotLeft, escape(p.Title))
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (plotLeft+plotWidth-plotRight)/2, plotHeight-18, escape(p.XLabel))
	fmt.Fprintf(&b, `<text transform="translate(20 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (plotTop+plotHeight-plotBottom)/2, escape(p.YLabel))
	for i, s := range p.Series {
		var d strings.Builder
		for j := range s.X {
			switch {
			case j == 0:
				fmt.Fprintf(&d, "M%.1f %.1f", sx(s.X[j]), sy(s.Y[j]))
			case s.Step:
				fmt.Fprintf(&d, "H%.1fV%.1f", sx(s.X[j]), sy(s.Y[j]))
			default:
				fmt.Fprintf(&d, "L%.1f %.1f", sx(s.X[j]), sy(s.Y[j]))
			}
		}
		fmt.Fprintf(&b, `<path d="%s" %s/>`+"\n", d.String(), style(i))
	}
	// The legend sits in the lower right corner, where distributions leave room.
	longest := 0
	for _, s := range p.Series {
		longest = max(longest, len(s.Name))
	}
	if len(p.Series) > 1 {
		width, height := legendWidth+14+longest*7, legendRow*len(p.Series)+8
		x, y := plotWidth-plotRight-width-8, plotHeight-plotBottom-height-8
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="white" fill-opacity="0.85" stroke="#bbb"/>`+"\n", x, y, width, height)
		for i, s := range p.Series {
			row := y + legendRow*i + 16
			fmt.Fprintf(&b, `<path d="M%d %dh%d" %s/><text x="%d" y="%d">%s</text>`+"\n", x+6, row-4, legendWidth-6, style(i), x+legendWidth+6, row, escape(s.Name))
		}
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

func style(i int) string {
	dash := ""
	if d := dashes[i/len(palette)]; d != "" {
		dash = fmt.Sprintf(` stroke-dasharray="%s"`, d)
	}
	return fmt.Sprintf(`fill="none" stroke="%s" stroke-width="1.8"%s`, palette[i%len(palette)], dash)
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // to a builder; cannot fail
	return b.String()
}

// ticks returns some round numbers that cover an interval.
func ticks(low, high float64) []float64 {
	if high-low < 1e-12*max(math.Abs(high), 1) {
		low, high = low-0.5, high+0.5
	}
	unit := math.Pow(10, math.Floor(math.Log10((high-low)/6)))
	for _, k := range []float64{1, 2, 5, 10} {
		if (high-low)/(unit*k) <= 8 {
			unit *= k
			break
		}
	}
	var out []float64
	for i := math.Floor(low / unit); ; i++ {
		out = append(out, i*unit)
		if i*unit >= high-unit*1e-9 {
			return out
		}
	}
}

func label(x float64) string {
	if math.Abs(x) < 1e-12 {
		return "0"
	}
	return strconv.FormatFloat(x, 'g', 6, 64)
}

// PlotCDF reads a cdf.csv and draws the share of devices complete over the fragments sent, one line for each point.
func PlotCDF(r io.Reader) (Plot, error) {
	t, err := readTable(r, "sent", "complete", "devices")
	if err != nil {
		return Plot{}, err
	}
	p := Plot{Title: t.cell(0, "scenario"), XLabel: "fragments sent", YLabel: "share of devices complete"}
	for i := range t.rows {
		sent, err1 := t.number(i, "sent")
		n, err2 := t.number(i, "complete")
		of, err3 := t.number(i, "devices")
		if err := firstError(err1, err2, err3); err != nil {
			return Plot{}, err
		}
		name := t.point(i, "")
		k := slices.IndexFunc(p.Series, func(s Series) bool { return s.Name == name })
		if k < 0 {
			k = len(p.Series)
			p.Series = append(p.Series, Series{Name: name, Step: true, X: []float64{sent}, Y: []float64{0}})
		}
		p.Series[k].X = append(p.Series[k].X, sent)
		p.Series[k].Y = append(p.Series[k].Y, n/of)
	}
	return p, nil
}

// PlotSummary reads a summary.csv and draws column y over a swept field x, one line for each combination of the others.
func PlotSummary(r io.Reader, x, y string) (Plot, error) {
	t, err := readTable(r, x, y)
	if err != nil {
		return Plot{}, err
	}
	p := Plot{Title: t.cell(0, "scenario"), XLabel: x, YLabel: y}
	for i := range t.rows {
		if t.cell(i, y) == "" {
			continue // a quantile that was not reached
		}
		vx, err1 := t.number(i, x)
		vy, err2 := t.number(i, y)
		if err := firstError(err1, err2); err != nil {
			return Plot{}, err
		}
		name := t.point(i, x)
		k := slices.IndexFunc(p.Series, func(s Series) bool { return s.Name == name })
		if k < 0 {
			k = len(p.Series)
			p.Series = append(p.Series, Series{Name: name})
		}
		p.Series[k].X = append(p.Series[k].X, vx)
		p.Series[k].Y = append(p.Series[k].Y, vy)
	}
	return p, nil
}

// resultTable is one of the CSV files that WriteResults writes.
type resultTable struct {
	columns []string
	rows    [][]string
}

func readTable(r io.Reader, need ...string) (resultTable, error) {
	all, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return resultTable{}, fmt.Errorf("experiment: results: %w", err)
	}
	if len(all) < 2 {
		return resultTable{}, fmt.Errorf("experiment: results: the file has no rows")
	}
	t := resultTable{all[0], all[1:]}
	for _, n := range append([]string{"scenario", "point"}, need...) {
		if !slices.Contains(t.columns, n) {
			return t, fmt.Errorf("experiment: results: there is no column %q; there are %s", n, strings.Join(t.columns, ", "))
		}
	}
	return t, nil
}

func (t resultTable) cell(row int, column string) string {
	return t.rows[row][slices.Index(t.columns, column)]
}

func (t resultTable) number(row int, column string) (float64, error) {
	v, err := strconv.ParseFloat(t.cell(row, column), 64)
	if err != nil {
		return 0, fmt.Errorf("experiment: results row %d: %s %q is no number", row+1, column, t.cell(row, column))
	}
	return v, nil
}

// point names a row by its swept fields, which stand between "point" and the first result column.
func (t resultTable) point(row int, except string) string {
	var parts []string
	for i := slices.Index(t.columns, "point") + 1; i < len(t.columns); i++ {
		c := t.columns[i]
		if c == "reps" || c == "rep" || c == "sent" && slices.Contains(t.columns[i:], "devices") {
			break
		}
		if c != except {
			parts = append(parts, c+" = "+t.rows[row][i])
		}
	}
	if len(parts) == 0 {
		return t.cell(row, "scenario")
	}
	return strings.Join(parts, ", ")
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
