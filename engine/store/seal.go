package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sower-fuota/sower/engine/network"
)

// keyFile is the name of the file with the key under which others are sealed.
const keyFile = "state.key"

// unlock reads the key file and makes sure that it belongs to the database; it creates it with the database.
func (s *Store) unlock(ctx context.Context) error {
	path := filepath.Join(filepath.Dir(s.path), keyFile)
	var check []byte
	err := s.write.QueryRowContext(ctx, "select key_check from meta").Scan(&check)
	fresh := errors.Is(err, sql.ErrNoRows)
	if err != nil && !fresh {
		return fmt.Errorf("store: %s: %w", s.path, err)
	}
	key, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && fresh:
		if key, err = newKey(path); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is missing; restore it: without it the multicast keys in %s cannot be read", ErrKey, path, s.path)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	if info, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	} else if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %04o, others may read it; run: chmod 600 %s", ErrKey, path, info.Mode().Perm(), path)
	}
	if len(key) != 32 {
		return fmt.Errorf("%w: %s has %d bytes, want 32; restore it from where it is kept", ErrKey, path, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	if s.seal, err = cipher.NewGCM(block); err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	if fresh {
		if _, err := s.write.ExecContext(ctx, "insert into meta values (1, 0, ?)", s.sealed(nil, "meta")); err != nil {
			return fmt.Errorf("store: %s: %w", s.path, err)
		}
		return nil
	}
	if _, err := s.opened(check, "meta"); err != nil {
		return fmt.Errorf("%w: %s is not the one that %s was written with; restore that one", ErrKey, path, s.path)
	}
	return nil
}

// newKey creates the key file.
func newKey(path string) ([]byte, error) {
	key := make([]byte, 32)
	rand.Read(key)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	_, err = f.Write(key)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return key, nil
}

// syncDir makes a new file in a directory survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// sealed encrypts a secret; place says where it is stored, so that it cannot be moved.
func (s *Store) sealed(secret []byte, place string) []byte {
	nonce := make([]byte, s.seal.NonceSize(), s.seal.NonceSize()+len(secret)+s.seal.Overhead())
	rand.Read(nonce)
	return s.seal.Seal(nonce, nonce, secret, []byte(place))
}

func (s *Store) opened(box []byte, place string) ([]byte, error) {
	n := s.seal.NonceSize()
	if len(box) < n {
		return nil, fmt.Errorf("store: sealed secret of %s has %d bytes", place, len(box))
	}
	return s.seal.Open(nil, box[:n], box[n:], []byte(place))
}

func groupPlace(campaign string, session int) string {
	return fmt.Sprintf("session %d of %s", session, campaign)
}

func (s *Store) openedKey(box []byte, campaign string, session int) (key network.Key, err error) {
	b, err := s.opened(box, groupPlace(campaign, session))
	if err != nil || len(b) != len(key) {
		return key, fmt.Errorf("%w: the multicast key of session %d of campaign %s cannot be read", ErrKey, session, campaign)
	}
	return network.Key(b), nil
}
