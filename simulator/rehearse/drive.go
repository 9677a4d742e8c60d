package rehearse

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/simulator/world"
)

// drive runs an engine in a world until the engine returns, the world reaches an instant, or the context ends; whichever
// comes first ends the other. It reports whether the engine came to its own end, and waits for it in any case.
func drive(ctx context.Context, w *world.World, until time.Time, engine func(context.Context, network.Clock) error) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clock := w.NewClock("engine")
	var engineErr error
	var running sync.WaitGroup
	running.Go(func() {
		defer w.Stop()
		defer clock.Close()
		engineErr = engine(ctx, clock)
	})
	worldErr := w.Run(ctx, until)
	cancel()
	running.Wait()
	switch {
	case engineErr != nil && !errors.Is(engineErr, context.Canceled):
		return false, engineErr
	case worldErr != nil && !errors.Is(worldErr, world.ErrStopped):
		return false, worldErr
	}
	return engineErr == nil, nil
}
