// Package packaging_test builds applications outside the source tree from an archive of firmware-stub alone: by
// CMake's find_package and FetchContent, by pkg-config, and with a bare compiler; the headers also as C++. What
// PlatformIO and Zephyr read is checked for the files it names; those tools themselves are not run.
package packaging_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// release are the parts of firmware-stub that an integrator needs; tests and the Go harness stay behind.
var release = []string{
	"CMakeLists.txt", "boot", "cmake", "examples", "include", "library.json", "ports", "services", "sower.pc.in", "src", "zephyr",
}

// archive packs the release as `git archive` would and returns the path.
func archive(t *testing.T) string {
	t.Helper()
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	out := tar.NewWriter(zip)
	for _, part := range release {
		err := filepath.Walk(filepath.Join("../..", part), func(path string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel("../..", path)
			if err != nil {
				return err
			}
			if err := out.WriteHeader(&tar.Header{Name: "sower-0.1.0/" + filepath.ToSlash(name), Mode: 0o644, Size: int64(len(text))}); err != nil {
				return err
			}
			_, err = out.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sower-0.1.0.tar.gz")
	if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func unpack(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, dir, "tar", "xzf", path)
	return filepath.Join(dir, "sower-0.1.0")
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// consumer copies the application to a folder of its own. project, if any, becomes its CMakeLists.txt.
func consumer(t *testing.T, project string) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"main.c": "main.c", project: "CMakeLists.txt"} {
		if from == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("testdata/consumer", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// works runs the application.
func works(t *testing.T, program string) {
	t.Helper()
	out := run(t, "", program)
	if !strings.Contains(out, "selftest 0 \n") || !strings.Contains(out, "open 0\n") {
		t.Errorf("%s says %q", program, out)
	}
}

func TestFindPackageAndPkgConfig(t *testing.T) {
	src, prefix, build := unpack(t, archive(t)), t.TempDir(), t.TempDir()
	run(t, "", "cmake", "-S", src, "-B", build, "-DCMAKE_INSTALL_PREFIX="+prefix, "-DCMAKE_INSTALL_LIBDIR=lib", "-DCMAKE_BUILD_TYPE=MinSizeRel")
	run(t, "", "cmake", "--build", build)
	run(t, "", "cmake", "--install", build)
	t.Run("find_package", func(t *testing.T) {
		app := consumer(t, "find_package.cmake")
		run(t, app, "cmake", "-S", ".", "-B", "b", "-DCMAKE_PREFIX_PATH="+prefix)
		run(t, app, "cmake", "--build", "b")
		works(t, filepath.Join(app, "b", "consumer"))
	})
	t.Run("pkg-config", func(t *testing.T) {
		app := consumer(t, "")
		run(t, app, "sh", "-c", "cc main.c $(PKG_CONFIG_PATH="+prefix+"/lib/pkgconfig pkg-config --cflags --libs sower) -o consumer")
		works(t, filepath.Join(app, "consumer"))
	})
}

func TestFetchContent(t *testing.T) {
	app := consumer(t, "fetch_content.cmake")
	run(t, app, "cmake", "-S", ".", "-B", "b", "-DARCHIVE="+archive(t))
	run(t, app, "cmake", "--build", "b")
	works(t, filepath.Join(app, "b", "consumer"))
}

func TestBareCompiler(t *testing.T) {
	src, app := unpack(t, archive(t)), consumer(t, "")
	run(t, app, "sh", "-c", "cc -std=c99 -Wall -Wextra -Werror -I"+src+"/include -I"+src+"/src -I"+src+"/boot main.c "+src+"/src/*.c "+src+"/boot/*.c -o consumer")
	works(t, filepath.Join(app, "consumer"))
}

// A boot stub and the application that runs over its services, for the target: by CMake, and by pkg-config with a bare
// compiler. The stub has the functions and, at its address, the table; the application has neither.
func TestServices(t *testing.T) {
	src, prefix, build := unpack(t, archive(t)), t.TempDir(), t.TempDir()
	project, err := filepath.Abs("testdata/services")
	if err != nil {
		t.Fatal(err)
	}
	toolchain := "-DCMAKE_TOOLCHAIN_FILE=" + filepath.Join(project, "toolchain.cmake")
	run(t, "", "cmake", "-S", src, "-B", build, toolchain, "-DSOWER_SERVICES=ON", "-DCMAKE_INSTALL_PREFIX="+prefix, "-DCMAKE_INSTALL_LIBDIR=lib")
	run(t, "", "cmake", "--build", build)
	run(t, "", "cmake", "--install", build)
	check := func(t *testing.T, dir string) {
		stub := run(t, dir, "arm-none-eabi-nm", "stub")
		for _, want := range []string{"080000c0 R sow_services_table\n", " sow_cmac_update\n", " mul_raw\n"} {
			if !strings.Contains(stub, want) {
				t.Errorf("the stub has no %q:\n%s", want, stub)
			}
		}
		application := run(t, dir, "arm-none-eabi-nm", "application")
		for name, has := range map[string]bool{"080000c0 A sow_services\n": true, " sow_cmac_update\n": true, " mul_raw\n": false, "sow_services_table": false} {
			if strings.Contains(application, name) != has {
				t.Errorf("%q in the application: want %v:\n%s", name, has, application)
			}
		}
	}
	t.Run("find_package", func(t *testing.T) {
		b := t.TempDir()
		run(t, "", "cmake", "-S", project, "-B", b, toolchain, "-DCMAKE_PREFIX_PATH="+prefix, "-DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=NEVER")
		run(t, "", "cmake", "--build", b)
		check(t, b)
	})
	t.Run("pkg-config", func(t *testing.T) {
		b := t.TempDir()
		for _, program := range []string{"stub", "application"} {
			run(t, b, "sh", "-c", "arm-none-eabi-gcc -std=c99 -Os -mcpu=cortex-m0plus -mthumb -ffreestanding "+project+"/"+program+".c "+
				"$(PKG_CONFIG_PATH="+prefix+"/lib/pkgconfig pkg-config --cflags --libs sower-"+program+") "+
				"-T "+project+"/"+program+".ld -nostartfiles --specs=nano.specs -Wl,--gc-sections -o "+program)
		}
		check(t, b)
	})
}

// Every public header stands alone, in C and in C++, for the host and for the target.
func TestHeadersStandAlone(t *testing.T) {
	src := unpack(t, archive(t))
	headers, err := filepath.Glob(filepath.Join(src, "include/*.h"))
	if err != nil || len(headers) < 5 {
		t.Fatalf("%d headers, %v", len(headers), err)
	}
	headers = append(headers, filepath.Join(src, "ports/modem/sow_modem.h"))
	dir := t.TempDir()
	var all strings.Builder
	for _, h := range headers {
		name := filepath.Base(h)
		if strings.HasSuffix(name, "_state.h") {
			continue // private, included by the others
		}
		all.WriteString("#include <" + name + ">\n")
		one := filepath.Join(dir, "one.c")
		if err := os.WriteFile(one, []byte("#include <"+name+">\n#include <"+name+">\nint one;\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		flags := []string{"-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I" + src + "/include", "-I" + src + "/ports/modem", "-fsyntax-only"}
		for _, cc := range [][]string{
			{"gcc", "-std=c99"}, {"g++", "-x", "c++", "-std=c++11"}, {"g++", "-x", "c++", "-std=c++20"},
			{"arm-none-eabi-gcc", "-std=c99", "-mcpu=cortex-m0plus", "-ffreestanding"},
		} {
			run(t, dir, cc[0], append(append(cc[1:], flags...), one)...)
		}
	}
	text, err := os.ReadFile("testdata/consumer/main.cpp")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.cpp"), bytes.Replace(text, []byte("HEADERS\n"), []byte(all.String()), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "sh", "-c", "cc -std=c99 -c -I"+src+"/include -I"+src+"/src -I"+src+"/boot "+src+"/src/*.c "+src+"/boot/*.c && "+
		"g++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -I"+src+"/include -I"+src+"/ports/modem main.cpp *.o -o consumer")
	if out := run(t, dir, "./consumer"); !strings.HasPrefix(out, "arena ") {
		t.Errorf("the C++ program says %q", out)
	}
}

// What PlatformIO and Zephyr read names files that are in the archive. Neither tool is run here.
func TestManifests(t *testing.T) {
	src := unpack(t, archive(t))
	text, err := os.ReadFile(filepath.Join(src, "library.json"))
	if err != nil {
		t.Fatal(err)
	}
	var lib struct {
		Name, Version string
		Headers       []string
	}
	if err := json.Unmarshal(text, &lib); err != nil || lib.Name != "sower" {
		t.Fatalf("library.json: %+v, %v", lib, err)
	}
	for _, h := range lib.Headers {
		if _, err := os.Stat(filepath.Join(src, "include", h)); err != nil {
			t.Error(err)
		}
	}
	cmake, err := os.ReadFile(filepath.Join(src, "CMakeLists.txt"))
	if err != nil || !strings.Contains(string(cmake), "VERSION "+lib.Version+" ") {
		t.Errorf("CMakeLists.txt is of another version than library.json, %s (%v)", lib.Version, err)
	}
	for _, name := range []string{"zephyr/module.yml", "zephyr/CMakeLists.txt", "zephyr/Kconfig"} {
		f, err := os.Open(filepath.Join(src, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if n, _ := io.Copy(io.Discard, f); n == 0 {
			t.Errorf("%s is empty", name)
		}
		f.Close()
	}
}
