// Package pullsecrets remembers the credentials that images are pulled with: a kubelet gives them to the image service of
// the CRI, with each pull, and to nobody else. A Proxy stands before that service, hands all calls on, and notes the
// credentials of pulls, by repository, in memory alone.
//
// Secrets may be used by any number of goroutines.
package pullsecrets

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/url"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxSecrets bounds the repositories that credentials are remembered of.
const maxSecrets = 4096

// Secrets are credentials by repository.
type Secrets struct {
	mu    sync.Mutex
	known map[string]secret
	order []string // of known, the oldest first
}

type secret struct{ host, user, password string }

// Lookup returns user and secret that a repository, HOST/NAME, was last pulled with, for its own host alone. An empty user's
// secret is a token to get others with.
func (s *Secrets) Lookup(host, repository string) (user, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[repository]; k.host == host {
		return k.user, k.password
	}
	return "", ""
}

// hosts of registries that are called by another name.
var hosts = map[string]string{"docker.io": "registry-1.docker.io"}

// note remembers the credentials of a pull, also that it was one without any. undo brings back those before, unless there
// are newer ones.
func (s *Secrets) note(image string, auth *cri.AuthConfig) (undo func()) {
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return func() {}
	}
	k := secret{host: reference.Domain(named)}
	if host, ok := hosts[k.host]; ok {
		k.host = host
	}
	k.user, k.password = parse(auth, k.host)
	name := reference.TrimNamed(named).Name()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]secret{}
	}
	if _, ok := s.known[name]; !ok {
		if len(s.order) >= maxSecrets {
			delete(s.known, s.order[0])
			s.order = s.order[1:]
		}
		s.order = append(s.order, name)
	}
	before := s.known[name]
	s.known[name] = k
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.known[name] == k {
			s.known[name] = before
		}
	}
}

// parse returns what a host may be told, as containerd takes it.
func parse(auth *cri.AuthConfig, host string) (user, password string) {
	if auth == nil {
		return "", ""
	}
	if auth.ServerAddress != "" {
		if u, err := url.Parse(auth.ServerAddress); err != nil || u.Host != host {
			return "", ""
		}
	}
	switch {
	case auth.Username != "":
		return auth.Username, auth.Password
	case auth.IdentityToken != "":
		return "", auth.IdentityToken
	}
	text, err := base64.StdEncoding.DecodeString(auth.Auth)
	if err != nil {
		return "", ""
	}
	user, password, _ = strings.Cut(string(text), ":")
	return user, strings.Trim(password, "\x00")
}

// Register has a server answer as the image service behind a connection does.
func Register(s *grpc.Server, behind grpc.ClientConnInterface, secrets *Secrets) {
	cri.RegisterImageServiceServer(s, &proxy{client: cri.NewImageServiceClient(behind), secrets: secrets})
}

// A proxy hands calls on.
type proxy struct {
	cri.UnimplementedImageServiceServer // what comes to be later
	client                              cri.ImageServiceClient
	secrets                             *Secrets
}

// PullImage implements cri.ImageServiceServer. While the image is pulled, its credentials are known already: its
// layers are wanted then.
func (p *proxy) PullImage(ctx context.Context, req *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	undo := p.secrets.note(req.GetImage().GetImage(), req.GetAuth())
	resp, err := p.client.PullImage(ctx, req)
	if err != nil {
		undo()
	}
	return resp, err
}

// ListImages implements cri.ImageServiceServer.
func (p *proxy) ListImages(ctx context.Context, req *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	return p.client.ListImages(ctx, req)
}

// StreamImages implements cri.ImageServiceServer.
func (p *proxy) StreamImages(req *cri.StreamImagesRequest, to grpc.ServerStreamingServer[cri.StreamImagesResponse]) error {
	from, err := p.client.StreamImages(to.Context(), req)
	for err == nil {
		var resp *cri.StreamImagesResponse
		if resp, err = from.Recv(); err == nil {
			err = to.Send(resp)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// ImageStatus implements cri.ImageServiceServer.
func (p *proxy) ImageStatus(ctx context.Context, req *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	return p.client.ImageStatus(ctx, req)
}

// RemoveImage implements cri.ImageServiceServer.
func (p *proxy) RemoveImage(ctx context.Context, req *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	return p.client.RemoveImage(ctx, req)
}

// ImageFsInfo implements cri.ImageServiceServer.
func (p *proxy) ImageFsInfo(ctx context.Context, req *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	return p.client.ImageFsInfo(ctx, req)
}
