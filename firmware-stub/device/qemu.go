package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// QEMUConfig says what an emulated device is made of.
type QEMUConfig struct {
	Program string   // emulator; "" means qemu-system-arm
	Boot    string   // ELF file of the boot stub
	Image   []byte   // MCUboot image in slot A
	ID      Identity // its factory page
	// TurnLimit is the longest a turn may take on the wall clock before the device counts as dead; 0 means 60 s.
	TurnLimit time.Duration
}

// ErrKilled is returned by the turn during which [QEMU.KillAfter] cut the power.
var ErrKilled = errors.New("device: killed")

// QEMU is the example firmware on an emulated Cortex-M board (mps2-an385). Its flash is a file, so it survives
// [QEMU.Kill]. Its clock is the clock in the frames it gets, so it is exact in virtual time.
type QEMU struct {
	cfg  QEMUConfig
	dir  string
	cmd  *exec.Cmd
	conn net.Conn
	in   modem.Decoder
	log  *bytes.Buffer // the emulator's own complaints
	died chan struct{} // closed when the emulator has ended

	fuse   time.Duration // of KillAfter
	timer  *time.Timer
	killed atomic.Bool // it has fired

	boots int
}

const qemuFlashFile = "flash.bin"

// qemuFlashSize is the RAM of the board, which plays the flash.
const qemuFlashSize = 16 << 20

// NewQEMU makes the flash of a device and starts the emulator. The device has not been powered up yet.
func NewQEMU(cfg QEMUConfig) (*QEMU, error) {
	if cfg.Program == "" {
		cfg.Program = "qemu-system-arm"
	}
	if cfg.TurnLimit == 0 {
		cfg.TurnLimit = time.Minute
	}
	if err := ExampleLayout().fits(cfg.Image); err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(cfg.Program); err != nil {
		return nil, fmt.Errorf("emulator %s is not installed: run `make setup`", cfg.Program)
	}
	if _, err := os.Stat(cfg.Boot); err != nil {
		return nil, fmt.Errorf("boot stub %s: run `make firmware`: %w", cfg.Boot, err)
	}
	dir, err := os.MkdirTemp("", "sower-qemu-")
	if err != nil {
		return nil, err
	}
	q := &QEMU{cfg: cfg, dir: dir}
	if err := q.manufacture(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return q, nil
}

// FlashFile is the memory behind the flash of an emulated device as it leaves the factory: erased, slot A, factory
// page, and the rest of the board's RAM.
func FlashFile(image []byte, id Identity) ([]byte, error) {
	if err := ExampleLayout().fits(image); err != nil {
		return nil, err
	}
	flash := append(bytes.Repeat([]byte{0xff}, flashLimit+flashPage), make([]byte, qemuFlashSize-flashLimit-flashPage)...)
	copy(flash, image)
	copy(flash[flashLimit:], id.factoryPage())
	return flash, nil
}

// manufacture writes the flash file; what follows the factory page stays a hole in it.
func (q *QEMU) manufacture() error {
	flash, err := FlashFile(q.cfg.Image, q.cfg.ID)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(q.dir, qemuFlashFile))
	if err != nil {
		return err
	}
	_, err = f.Write(flash[:flashLimit+flashPage])
	if err == nil {
		err = f.Truncate(qemuFlashSize)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// start launches the emulator and waits for its UART to connect.
func (q *QEMU) start() error {
	sock := filepath.Join(q.dir, "uart.sock")
	os.Remove(sock)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return fmt.Errorf("emulator UART: %w", err)
	}
	defer l.Close()
	q.log = &bytes.Buffer{}
	q.cmd = exec.Command(q.cfg.Program,
		"-M", "mps2-an385,memory-backend=flash",
		"-object", fmt.Sprintf("memory-backend-file,id=flash,size=%d,mem-path=%s,share=on", qemuFlashSize, filepath.Join(q.dir, qemuFlashFile)),
		"-icount", "shift=4", // time is instructions: the watchdog fires at the same one in every run
		"-display", "none", "-monitor", "none",
		"-chardev", "socket,id=uart,server=off,path="+sock,
		"-serial", "chardev:uart",
		"-kernel", q.cfg.Boot)
	q.cmd.Stderr = q.log
	if err := q.cmd.Start(); err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	q.killed.Store(false)
	q.KillAfter(q.fuse)
	died := make(chan struct{})
	q.died = died
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // its complaint is in q.log
		close(died)
		l.Close() // ends Accept if the emulator never connected
	}(q.cmd)
	if err := l.SetDeadline(time.Now().Add(q.cfg.TurnLimit)); err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil && q.killed.Load() {
		return q.dead(err)
	}
	if err != nil {
		q.stop()
		return fmt.Errorf("emulator %s did not start: %w: %s", q.cfg.Program, err, bytes.TrimSpace(q.log.Bytes()))
	}
	q.conn = conn
	q.in = modem.Decoder{}
	return nil
}

// PowerUp starts the emulator and returns what the device says until it is idle.
func (q *QEMU) PowerUp() ([]modem.Frame, error) {
	if q.cmd != nil {
		return nil, errors.New("device: the emulated device is on")
	}
	if err := q.start(); err != nil {
		return nil, err
	}
	return q.listen()
}

// Turn sends one frame and returns what the device answers, up to and with IDLE_UNTIL.
func (q *QEMU) Turn(f modem.Frame) ([]modem.Frame, error) {
	if q.cmd == nil {
		return nil, errors.New("device: the emulated device is off")
	}
	raw, err := modem.AppendFrame(nil, f)
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(raw); err != nil {
		return nil, q.dead(err)
	}
	return q.listen()
}

// listen collects frames up to IDLE_UNTIL.
func (q *QEMU) listen() ([]modem.Frame, error) {
	if err := q.conn.SetReadDeadline(time.Now().Add(q.cfg.TurnLimit)); err != nil {
		return nil, err
	}
	var out []modem.Frame
	buf := make([]byte, 4096)
	for {
		for f, ok := q.in.Next(); ok; f, ok = q.in.Next() {
			f.Payload = bytes.Clone(f.Payload)
			out = append(out, f)
			if f.Type == modem.TypeConsole && bytes.HasPrefix(f.Payload, []byte("stub: ")) {
				q.boots++ // one line at every run of the boot stub, also after a watchdog reset
			}
			if f.Type == modem.TypeIdleUntil {
				return out, nil
			}
		}
		n, err := q.conn.Read(buf)
		if err != nil {
			return out, q.dead(err)
		}
		q.in.Write(buf[:n])
	}
}

// dead explains why the emulator no longer answers.
func (q *QEMU) dead(err error) error {
	if q.killed.Load() {
		q.stop()
		return ErrKilled
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("device: the emulated device has not answered for %s", q.cfg.TurnLimit)
	}
	if errors.Is(err, io.EOF) {
		<-q.died
		return fmt.Errorf("device: the emulator ended: %s", bytes.TrimSpace(q.log.Bytes()))
	}
	return fmt.Errorf("device: emulator UART: %w", err)
}

// Boots is how often the boot stub has been executed.
func (q *QEMU) Boots() int { return q.boots }

// Kill ends the emulator at once, as a power cut would. PowerUp continues with the flash as it is.
func (q *QEMU) Kill() { q.stop() }

// KillAfter lets the next calls run and kills the emulator (SIGKILL) that much later on the wall clock, or, if it
// is off, after its next start, wherever it then is; the call under way returns [ErrKilled]. It replaces the last
// KillAfter; 0 takes it back.
func (q *QEMU) KillAfter(d time.Duration) {
	if q.timer != nil {
		q.timer.Stop()
		q.timer = nil
	}
	q.fuse = d
	if d == 0 || q.cmd == nil {
		return
	}
	process := q.cmd.Process
	q.timer = time.AfterFunc(d, func() {
		q.killed.Store(true)
		_ = process.Kill() // it may have ended by itself
	})
}

func (q *QEMU) stop() {
	q.KillAfter(0)
	if q.cmd == nil {
		return
	}
	_ = q.cmd.Process.Kill() // it may have ended by itself
	<-q.died
	if q.conn != nil {
		q.conn.Close()
	}
	q.cmd, q.conn = nil, nil
}

// Flip inverts one bit of the flash, as radiation or wear would. addr is a flash address.
func (q *QEMU) Flip(addr uint32, bit uint) error {
	f, err := os.OpenFile(filepath.Join(q.dir, qemuFlashFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], int64(addr-flashBase)); err != nil {
		return err
	}
	b[0] ^= 1 << (bit & 7)
	_, err = f.WriteAt(b[:], int64(addr-flashBase))
	return err
}

// Violations is how often the firmware asked its flash for something real flash refuses: a granule programmed
// twice, an address outside. The library must never try.
func (q *QEMU) Violations() (int, error) {
	f, err := os.Open(filepath.Join(q.dir, qemuFlashFile))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var word [4]byte
	if _, err := f.ReadAt(word[:], flashLimit+flashPage); err != nil {
		return 0, err
	}
	return int(binary.LittleEndian.Uint32(word[:])), nil
}

// SlotA returns the first n bytes of slot A.
func (q *QEMU) SlotA(n int) ([]byte, error) {
	f, err := os.Open(filepath.Join(q.dir, qemuFlashFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	_, err = io.ReadFull(f, b)
	return b, err
}

// Close ends the emulator and removes its files.
func (q *QEMU) Close() error {
	q.stop()
	return os.RemoveAll(q.dir)
}
