package api

//go:generate sh generate.sh
