package convert

import (
	"errors"
	"io"

	"oras.land/oras-go/v2/errdef"
)

// maxResumes is how often in a row reading a blob is taken up again without any byte
// between.
const maxResumes = 5

// A resumer goes on where a connection broke: layers are large, and converting one
// again from its start is what takes long.
type resumer struct {
	ctxErr func() error // once the caller has given up, nothing is taken up again
	r      io.ReadSeekCloser
	n      int64 // bytes read
	size   int64
	failed int // times in a row
}

func (r *resumer) Read(p []byte) (int, error) {
	for {
		n, err := r.r.Read(p)
		r.n += int64(n)
		if n > 0 {
			r.failed = 0
			if err != nil && r.n < r.size {
				err = nil // comes again with the next Read
			}
			return n, err
		}
		if err == nil || r.n >= r.size || r.failed == maxResumes || r.ctxErr() != nil {
			return n, err
		}
		r.failed++
		// Seeking to where it stands would do nothing: leave that place first.
		_, seekErr := r.r.Seek(r.size, io.SeekStart)
		if seekErr == nil {
			_, seekErr = r.r.Seek(r.n, io.SeekStart)
		}
		if seekErr != nil {
			return 0, errors.Join(err, seekErr)
		}
	}
}

// Seek implements io.Seeker, from the start.
func (r *resumer) Seek(off int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, errors.ErrUnsupported
	}
	n, err := r.r.Seek(off, io.SeekStart)
	if err == nil {
		r.n = n
	}
	return n, err
}

func (r *resumer) Close() error { return r.r.Close() }

func isNotFound(err error) bool { return errors.Is(err, errdef.ErrNotFound) }
