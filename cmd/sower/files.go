package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sower-fuota/sower/bundle/image"
)

// readInput reads a whole file that must not be empty. what says what it is, for the error.
func readInput(what, path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return nil, fmt.Errorf("%s %s: %w", what, path, pathErr.Err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s %s: the file is empty", what, path)
	}
	return b, nil
}

// readImage reads a firmware image in any form that package image knows. Warnings go to w.
func readImage(w io.Writer, what, path string) (*image.Image, error) {
	file, err := readInput(what, path)
	if err != nil {
		return nil, err
	}
	im, err := image.Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	for _, text := range im.Warnings {
		warn(w, "%s %s: %s", what, path, text)
	}
	return im, nil
}

// warn prints a line about something that is unwise and was done all the same.
func warn(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "sower: warning: "+format+"\n", args...)
}

// writeOutput writes a file as a whole or not at all: a reader never sees half of it.
func writeOutput(path string, data []byte, perm fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("output %s: %w", path, unwrapPath(err))
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, bytes.NewReader(data))
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("output %s: %w", path, unwrapPath(err))
	}
	return nil
}

// unwrapPath drops the operation and path that os puts before a cause the caller names better.
func unwrapPath(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	var linkErr *os.LinkError
	if errors.As(err, &linkErr) {
		return linkErr.Err
	}
	return err
}

// printJSON writes v as one indented JSON document.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// mustNotExist guards files that must never be overwritten.
func mustNotExist(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("output %s: exists already; choose another name or move it away", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("output %s: %w", path, unwrapPath(err))
	}
	return nil
}
