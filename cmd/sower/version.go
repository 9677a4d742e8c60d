package main

import (
	"cmp"
	"runtime/debug"
)

// release is set by scripts/dist.sh, which leaves out what the go command would write itself.
var release string

// version is that of the program, as far as its build knows.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return versionOf(info)
}

// versionOf is the version of the module, else the revision that it was built from, and whether that was modified.
func versionOf(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var revision, modified string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = "revision " + s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = ", modified"
		}
	}
	if revision == "" {
		return cmp.Or(info.Main.Version, "unknown")
	}
	return revision + modified
}
