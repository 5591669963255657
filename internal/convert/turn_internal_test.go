package convert

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := newTurn()
		first, err := large.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		had := make(chan func())
		go func() {
			done, err := large.take(t.Context())
			if err != nil {
				t.Error(err)
			}
			had <- done
		}()
		synctest.Wait()
		select {
		case <-had:
			t.Fatal("two layers had the turn at once")
		default:
		}
		first()
		(<-had)()
	})
}

func TestTurnOfWhoGaveUp(t *testing.T) {
	large := newTurn()
	first, err := large.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gaveUp := errors.New("gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gaveUp)
	done, err := large.take(ctx)
	if !errors.Is(err, gaveUp) {
		t.Errorf("take: %v, want %v", err, gaveUp)
	}
	done() // of nothing
	first()
	if done, err = large.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	done()
}
