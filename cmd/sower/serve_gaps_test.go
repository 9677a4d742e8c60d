package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/engine/session"
)

// A gap is where a kill finds an effect: between the commit of its intent, the call that carries it out, the answer, and
// the commit of the result.
type gap int

const (
	noCall    gap = iota // the intent is in the store, and the server has seen no call
	noAnswer             // the server has carried it out, and the engine does not know
	noCommit             // the server has answered, and the intent is still in the store
	committed            // the result is in the store, and no other call has followed
	doubted              // an earlier kill has left it in doubt, and it is not settled yet
	gaps
)

var gapNames = [gaps]string{"intent, no call", "call, no answer", "answer, no commit", "committed", "in doubt again"}

// coverage counts in which gaps of which effects kills fell.
type coverage map[string]*[gaps]int

func (c coverage) add(effect string, g gap) {
	if c[effect] == nil {
		c[effect] = new([gaps]int)
	}
	c[effect][g]++
}

func (c coverage) has(effect string, g gap, want int) bool {
	return c[effect] != nil && c[effect][g] >= want
}

func (c coverage) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t%s\t\n", strings.Join(gapNames[:], "\t"))
	for _, e := range effects {
		if c[e] == nil {
			continue
		}
		fmt.Fprintf(w, "%s\t", e)
		for _, n := range c[e] {
			fmt.Fprintf(w, "%d\t", n)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	return "\n" + b.String()
}

// effects are all that the engine asks of a network, by the names that they have in the store.
var effects = []string{"send", "broadcast", "open_group", "close_group", "flush_device", "flush_group"}

// intent is an effect in the store.
type intent struct {
	id             uint64
	effect, target string
}

// intents reads the effects to be carried out, in the order in which they are.
func intents(db *sql.DB) (out []intent, err error) {
	rows, err := db.Query("select id, data from jobs order by due, id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var in intent
		var data []byte
		if err := rows.Scan(&in.id, &data); err != nil {
			return nil, err
		}
		var j struct {
			Send        *session.Send
			Broadcast   *session.Broadcast
			OpenGroup   *struct{ Group struct{ Name string } } `json:"open_group"`
			CloseGroup  *session.CloseGroup                    `json:"close_group"`
			FlushDevice *session.FlushDevice                   `json:"flush_device"`
			FlushGroup  *session.FlushGroup                    `json:"flush_group"`
		}
		if err := json.Unmarshal(data, &j); err != nil {
			return nil, err
		}
		switch {
		case j.Send != nil:
			in.effect, in.target = "send", fmt.Sprintf("%s %d", j.Send.Device, j.Send.FPort)
			if !j.Send.NeedsKey {
				in.target += fmt.Sprintf(" %x", j.Send.Payload)
			}
		case j.Broadcast != nil:
			b := j.Broadcast.Broadcast
			in.effect, in.target = "broadcast", fmt.Sprintf("%s %d %x", b.Group, b.FPort, b.Payload)
		case j.OpenGroup != nil:
			in.effect, in.target = "open_group", j.OpenGroup.Group.Name
		case j.CloseGroup != nil:
			in.effect, in.target = "close_group", string(j.CloseGroup.Group)
		case j.FlushDevice != nil:
			in.effect, in.target = "flush_device", j.FlushDevice.Device.String()
		case j.FlushGroup != nil:
			in.effect, in.target = "flush_group", string(j.FlushGroup.Group)
		default:
			return nil, fmt.Errorf("job %d: %s", in.id, data)
		}
		out = append(out, in)
	}
	return out, rows.Err()
}

// act says which effect a call of the network server carries out, and on what; an empty effect: none, it is a question.
func act(method string, frame []byte) (effect, target string, err error) {
	read := func(m proto.Message) { err = proto.Unmarshal(frame, m) }
	switch method {
	case api.DeviceService_Enqueue_FullMethodName:
		var m api.EnqueueDeviceQueueItemRequest
		read(&m)
		i := m.GetQueueItem()
		return "send", fmt.Sprintf("%s %d %x", i.GetDevEui(), i.GetFPort(), i.GetData()), err
	case api.DeviceService_FlushQueue_FullMethodName:
		var m api.FlushDeviceQueueRequest
		read(&m)
		return "flush_device", m.GetDevEui(), err
	case api.MulticastGroupService_Enqueue_FullMethodName:
		var m api.EnqueueMulticastGroupQueueItemRequest
		read(&m)
		i := m.GetQueueItem()
		return "broadcast", fmt.Sprintf("%s %d %x", i.GetMulticastGroupId(), i.GetFPort(), i.GetData()), err
	case api.MulticastGroupService_FlushQueue_FullMethodName:
		var m api.FlushMulticastGroupQueueRequest
		read(&m)
		return "flush_group", m.GetMulticastGroupId(), err
	case api.MulticastGroupService_Create_FullMethodName:
		var m api.CreateMulticastGroupRequest
		read(&m)
		return "open_group", m.GetMulticastGroup().GetName(), err
	case api.MulticastGroupService_Delete_FullMethodName:
		var m api.DeleteMulticastGroupRequest
		read(&m)
		return "close_group", m.GetId(), err
	}
	return "", "", nil
}

// call is a call that carries out an intent.
type call struct {
	intent
	answered bool
}

// wire lies between sower serve and the network server. It passes calls on, finds the intent of each in the store, says
// where a kill fell, and asks for one where none has fallen yet.
type wire struct {
	address  string
	database string
	server   *grpc.Server
	conn     *grpc.ClientConn
	strike   chan struct{}                              // asks for a kill
	passed   func(effect, target string, answer []byte) // called with what the server has carried out

	mu      sync.Mutex
	db      *sql.DB
	covered coverage
	want    int             // kills in each gap; 0: none is asked for
	busy    *sql.DB         // has the lock of the store, so that no commit is made
	life    int             // of the process, from 1
	alive   bool            // it has not been killed
	struck  bool            // in this life
	calls   []call          // of this life of the process
	old     map[uint64]bool // intents that an earlier life has left
	broken  []string        // what must never be
}

// newWire listens in front of a network server.
func newWire(t *testing.T, server, database string) *wire {
	t.Helper()
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String(), database: database, conn: conn, strike: make(chan struct{}, 1), passed: func(string, string, []byte) {},
		covered: coverage{}, old: map[uint64]bool{}}
	w.server = grpc.NewServer(grpc.UnknownServiceHandler(w.pass), grpc.ForceServerCodecV2(raw{}))
	go w.server.Serve(l)
	t.Cleanup(func() {
		w.server.Stop()
		conn.Close()
		if w.db != nil {
			w.db.Close()
		}
	})
	return w
}

// raw is the codec of those who do not look inside.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
func (raw) Name() string { return "raw" }

// pass passes a call on.
func (w *wire) pass(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	var request, answer []byte
	if err := s.RecvMsg(&request); err != nil {
		return err
	}
	effect, target, err := act(method, request)
	if err != nil {
		return err
	}
	life, n, g := w.arrived(effect, target)
	if life == 0 {
		return status.Error(codes.Unavailable, "the caller is dead")
	}
	if g == noCall || g == doubted {
		w.strike <- struct{}{}
		<-s.Context().Done()
		return context.Cause(s.Context())
	}
	md, _ := metadata.FromIncomingContext(s.Context())
	// What has reached the server is carried out, whoever has died meanwhile.
	ctx := metadata.NewOutgoingContext(context.WithoutCancel(s.Context()), md)
	if err := w.conn.Invoke(ctx, method, &request, &answer, grpc.ForceCodecV2(raw{})); err != nil {
		return err
	}
	w.passed(effect, target, answer)
	if g == noAnswer {
		w.strike <- struct{}{}
		<-s.Context().Done()
		return context.Cause(s.Context())
	}
	if g == noCommit {
		w.lock(life)
	}
	if err := s.SendMsg(&answer); err != nil {
		return err
	}
	w.answered(life, n)
	if g == noCommit {
		time.AfterFunc(takes, func() { w.strike <- struct{}{} })
	}
	return nil
}

// takes is how long the engine takes with an answer until it wants to commit.
const takes = 3 * time.Millisecond

// answered notes that a call was answered.
func (w *wire) answered(life, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n >= 0 && life == w.life && w.alive {
		w.calls[n].answered = true
	}
}

// arrived notes a call and chooses the gap in which it is struck; gaps: in none. n is the number of the call in this
// life; -1: it is a question. life is 0 if the caller is dead.
func (w *wire) arrived(effect, target string) (life, n int, g gap) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.alive {
		return 0, -1, gaps
	}
	n, g = w.judge(effect, target)
	return w.life, n, g
}

// judge is arrived for one who lives; the caller holds w.mu.
func (w *wire) judge(effect, target string) (n int, g gap) {
	if effect == "" && (len(w.old) == 0 || w.want == 0) {
		return -1, gaps
	}
	if w.db == nil {
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: w.database, RawQuery: "mode=ro&_pragma=busy_timeout(5000)"}).String())
		if err != nil {
			w.broken = append(w.broken, err.Error())
			return -1, gaps
		}
		w.db = db
	}
	list, err := intents(w.db)
	if err != nil {
		w.broken = append(w.broken, err.Error())
		return -1, gaps
	}
	armed := func(e string, g gap) bool { return w.want > 0 && !w.struck && !w.covered.has(e, g, w.want) }
	for _, in := range list {
		if w.old[in.id] && !w.called(in.id) && armed(in.effect, doubted) && (effect == "" || effect == in.effect) {
			w.struck = true
			return -1, doubted
		}
	}
	if effect == "" {
		return -1, gaps
	}
	i := slices.IndexFunc(list, func(in intent) bool {
		return in.effect == effect && (in.target == target || strings.HasPrefix(target, in.target+" ")) && !w.called(in.id)
	})
	if i < 0 {
		w.broken = append(w.broken, fmt.Sprintf("%s %s: no intent of it is in the store", effect, target))
		return -1, gaps
	}
	g = gaps
	if last := len(w.calls) - 1; last >= 0 && w.calls[last].answered && armed(w.calls[last].effect, committed) {
		g = noCall // of this one
	}
	for _, try := range []gap{noCall, noAnswer, noCommit} {
		if g == gaps && armed(effect, try) && !(try == noCall && w.old[list[i].id]) {
			g = try
		}
	}
	w.struck = w.struck || g != gaps
	if g != noCall {
		w.calls = append(w.calls, call{intent: list[i]})
	}
	return len(w.calls) - 1, g
}

// called reports whether an intent was called for in this life; the caller holds w.mu.
func (w *wire) called(id uint64) bool {
	return slices.ContainsFunc(w.calls, func(c call) bool { return c.id == id })
}

// died takes account of a kill: the process is gone. It returns how many effects were under way.
func (w *wire) died() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive = false
	list, err := w.left()
	if err != nil {
		return 0, err
	}
	waits := map[uint64]bool{}
	for _, in := range list {
		waits[in.id] = true
		i := slices.IndexFunc(w.calls, func(c call) bool { return c.id == in.id })
		switch {
		case i >= 0 && w.calls[i].answered:
			w.covered.add(in.effect, noCommit)
		case i >= 0:
			w.covered.add(in.effect, noAnswer)
		case w.old[in.id]:
			w.covered.add(in.effect, doubted)
		default:
			w.covered.add(in.effect, noCall)
		}
	}
	if n := len(w.calls); n > 0 && w.calls[n-1].answered && !waits[w.calls[n-1].id] {
		w.covered.add(w.calls[n-1].effect, committed)
	}
	w.calls, w.old, w.struck = nil, waits, false
	return len(list), nil
}

// born says that a process begins.
func (w *wire) born() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.life++
	w.alive = true
	select {
	case <-w.strike: // the kill was quicker
	default:
	}
}

// aim asks for kills until so many have fallen into each gap.
func (w *wire) aim(want int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want = want
}

// lock takes the lock of the store: a disk that is slow.
func (w *wire) lock(life int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.alive || life != w.life {
		return
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: w.database, RawQuery: "_pragma=busy_timeout(5000)"}).String())
	if err == nil {
		db.SetMaxOpenConns(1)
		_, err = db.Exec("begin immediate")
	}
	if err != nil {
		w.broken = append(w.broken, err.Error())
		return
	}
	w.busy = db
}

// left reads a copy of the store, so that the next process finds the store as the kill has left it.
func (w *wire) left() ([]intent, error) {
	if w.busy != nil {
		_, err := w.busy.Exec("rollback")
		if err := errors.Join(err, w.busy.Close()); err != nil {
			return nil, err
		}
		w.busy = nil
	}
	if w.db != nil {
		w.db.Close()
		w.db = nil
	}
	dir, err := os.MkdirTemp("", "sower-kill-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, end := range []string{"", "-wal"} {
		data, err := os.ReadFile(w.database + end)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "copy"+end), data, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "copy"))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return intents(db)
}
