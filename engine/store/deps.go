//go:build deps

package store

import (
	_ "connectrpc.com/connect"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "gonum.org/v1/plot/plotter"
	_ "gonum.org/v1/plot/vg/vgimg"
)
