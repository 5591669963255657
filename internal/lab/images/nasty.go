package images

import (
	"context"
	"errors"
)

func makeNasty(context.Context, string, func(string, ...any)) error {
	return errors.New("not made yet")
}
