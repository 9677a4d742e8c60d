package main

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"--version"}, strings.NewReader(""), &stdout, &stderr)
	if want := "sower " + version() + ", built with " + runtime.Version() + "\n"; code != exitDone || stdout.String() != want || stderr.Len() > 0 {
		t.Errorf("exit code %d, %q, %q; want %q", code, stdout.String(), stderr.String(), want)
	}
}

func TestVersionOf(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "72e71f5"}
	for _, tt := range []struct {
		name, module string
		settings     []debug.BuildSetting
		want         string
	}{
		{"a release", "v1.2.0", []debug.BuildSetting{revision}, "v1.2.0"},
		{"a work tree", "(devel)", []debug.BuildSetting{revision, {Key: "vcs.modified", Value: "false"}}, "revision 72e71f5"},
		{"a work tree with changes", "", []debug.BuildSetting{revision, {Key: "vcs.modified", Value: "true"}}, "revision 72e71f5, modified"},
		{"without version control", "(devel)", []debug.BuildSetting{{Key: "vcs.modified", Value: "true"}}, "(devel)"},
		{"nothing known", "", nil, "unknown"},
	} {
		if got := versionOf(&debug.BuildInfo{Main: debug.Module{Version: tt.module}, Settings: tt.settings}); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
