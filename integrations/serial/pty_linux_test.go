package serial_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/integrations/serial"
)

func ioctl(f *os.File, req uintptr, arg unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	if err := conn.Control(func(fd uintptr) { _, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, req, uintptr(arg)) }); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// pty returns the master of a pseudo terminal in raw mode and the path of its slave.
func pty(t *testing.T) (*os.File, string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var n, unlock int32
	if err := ioctl(master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)); err != nil {
		t.Fatal(err)
	}
	if err := ioctl(master, syscall.TIOCGPTN, unsafe.Pointer(&n)); err != nil {
		t.Fatal(err)
	}
	raw := syscall.Termios{Cflag: syscall.CS8 | syscall.CREAD | syscall.CLOCAL}
	raw.Cc[syscall.VMIN] = 1
	if err := ioctl(master, syscall.TCSETS, unsafe.Pointer(&raw)); err != nil {
		t.Fatal(err)
	}
	return master, fmt.Sprintf("/dev/pts/%d", n)
}

// terminal is a slave with the reads that a UART must have.
type terminal struct{ *os.File }

func (f terminal) Read(b []byte) (int, error) {
	if err := f.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return 0, err
	}
	n, err := f.File.Read(b)
	if os.IsTimeout(err) {
		err = nil
	}
	return n, err
}

// The bytes pass through a terminal, where anything but a raw mode would change them.
func TestFeedThroughTerminal(t *testing.T) {
	f := newFixture(t)
	master, path := pty(t)
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	served(t, master, f.host(t, 2))
	link := serial.NewLink(terminal{slave}, 0)
	defer link.Close()
	res, err := serial.Feed(t.Context(), link, f.full, serial.Options{
		RootKey: f.id.RootKey, GPS: 1_400_000_000, Loss: 0.1, CutReset: true, Seed: 2, Size: 64,
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.New != bundle.MakeVersion(1, 1, 0) || !res.ProvedByReboot || res.Lost == 0 {
		t.Errorf("%+v", res)
	}
}
