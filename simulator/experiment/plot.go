package experiment

import (
	"encoding/csv"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
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
	palette = []color.RGBA{{0x00, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0xcc, 0x79, 0xa7, 0xff},
		{0xe6, 0x9f, 0x00, 0xff}, {0x56, 0xb4, 0xe9, 0xff}, {0x00, 0x00, 0x00, 0xff}}
	dashes = [][]vg.Length{nil, {7, 4}, {2, 3}, {9, 3, 2, 3}}
)

const (
	maxSeries             = 28 // that palette and dashes tell apart
	plotWidth, plotHeight = 9 * vg.Inch, 5.5 * vg.Inch
	plotResolution        = 120 // dots per inch of PNG
)

// SVG draws the chart. The same data give the same bytes.
func (p Plot) SVG(w io.Writer) error {
	chart, err := p.chart()
	if err != nil {
		return err
	}
	c := vgsvg.New(plotWidth, plotHeight)
	chart.Draw(draw.New(c))
	_, err = c.WriteTo(w)
	return err
}

// PNG draws the chart, of 1080 by 660 pixels.
func (p Plot) PNG(w io.Writer) error {
	chart, err := p.chart()
	if err != nil {
		return err
	}
	c := vgimg.NewWith(vgimg.UseWH(plotWidth, plotHeight), vgimg.UseDPI(plotResolution))
	chart.Draw(draw.New(c))
	_, err = vgimg.PngCanvas{Canvas: c}.WriteTo(w)
	return err
}

func (p Plot) chart() (*plot.Plot, error) {
	if len(p.Series) == 0 {
		return nil, fmt.Errorf("experiment: nothing to plot")
	}
	if len(p.Series) > maxSeries {
		return nil, fmt.Errorf("experiment: %d lines in one plot, want at most %d; sweep less or plot part of it", len(p.Series), maxSeries)
	}
	c := plot.New()
	c.Title.Text, c.X.Label.Text, c.Y.Label.Text = p.Title, p.XLabel, p.YLabel
	for _, font := range []*draw.TextStyle{&c.Title.TextStyle, &c.X.Label.TextStyle, &c.Y.Label.TextStyle, &c.X.Tick.Label, &c.Y.Tick.Label, &c.Legend.TextStyle} {
		font.Font.Variant = "Sans"
	}
	c.Title.Padding, c.Legend.Padding = vg.Points(6), vg.Points(2)
	c.Legend.ThumbnailWidth = vg.Points(28)
	c.Legend.XOffs, c.Legend.YOffs = -vg.Points(6), vg.Points(6) // in the lower right corner, where distributions leave room
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdd}, color.Gray{0xdd}
	c.Add(grid)
	for i, s := range p.Series {
		points := make(plotter.XYs, len(s.X))
		for j := range points {
			points[j] = plotter.XY{X: s.X[j], Y: s.Y[j]}
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, fmt.Errorf("experiment: line %q of the plot: %w", s.Name, err)
		}
		line.LineStyle = draw.LineStyle{Color: palette[i%len(palette)], Width: vg.Points(1.4), Dashes: dashes[i/len(palette)]}
		if s.Step {
			line.StepStyle = plotter.PostStep
		}
		c.Add(line)
		if len(p.Series) > 1 {
			c.Legend.Add(s.Name, line)
		}
	}
	if c.Y.Min >= 0 && c.Y.Max <= 1.0000001 {
		c.Y.Min, c.Y.Max = 0, 1 // a share
	}
	for _, a := range []*plot.Axis{&c.X, &c.Y} {
		if a.Max-a.Min < 1e-12*max(math.Abs(a.Max), 1) {
			a.Min, a.Max = a.Min-0.5, a.Max+0.5
		}
	}
	return c, nil
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
