package pullsecrets

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// service is an image service that says what it was asked.
type service struct {
	cri.UnimplementedImageServiceServer
	pulled *cri.PullImageRequest
}

func (s *service) PullImage(_ context.Context, req *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	s.pulled = req
	return &cri.PullImageResponse{ImageRef: "pulled"}, nil
}

func (s *service) ListImages(context.Context, *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	return &cri.ListImagesResponse{Images: []*cri.Image{{Id: "one"}}}, nil
}

func (s *service) StreamImages(_ *cri.StreamImagesRequest, to grpc.ServerStreamingServer[cri.StreamImagesResponse]) error {
	return errors.Join(to.Send(&cri.StreamImagesResponse{}), to.Send(&cri.StreamImagesResponse{}))
}

func (s *service) ImageStatus(context.Context, *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	return &cri.ImageStatusResponse{Info: map[string]string{"a": "b"}}, nil
}

func (s *service) RemoveImage(context.Context, *cri.RemoveImageRequest) (*cri.RemoveImageResponse, error) {
	return nil, errors.New("not removed")
}

func (s *service) ImageFsInfo(context.Context, *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{{}}}, nil
}

// serve serves with register on a socket, and returns a connection to it.
func serve(t *testing.T, name string, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if err := errors.Join(<-done, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// TestProxy hands each call on.
func TestProxy(t *testing.T) {
	behind, secrets := new(service), new(Secrets)
	conn := serve(t, "behind", func(s *grpc.Server) { cri.RegisterImageServiceServer(s, behind) })
	c := cri.NewImageServiceClient(serve(t, "front", func(s *grpc.Server) { Register(s, conn, secrets) }))
	ctx := t.Context()
	req := &cri.PullImageRequest{
		Image: &cri.ImageSpec{Image: "registry.example.com/team/app:1"}, Auth: &cri.AuthConfig{Username: "user", Password: "secret"},
		SandboxConfig: &cri.PodSandboxConfig{Hostname: "pod"},
	}
	if r, err := c.PullImage(ctx, req); err != nil || r.ImageRef != "pulled" || behind.pulled.SandboxConfig.Hostname != "pod" || behind.pulled.Auth.Password != "secret" {
		t.Errorf("pull: %v, %v", r, err)
	}
	if user, secret := secrets.Lookup("registry.example.com", "registry.example.com/team/app"); user != "user" || secret != "secret" {
		t.Errorf("it was pulled with %q and %q", user, secret)
	}
	if r, err := c.ListImages(ctx, &cri.ListImagesRequest{}); err != nil || len(r.Images) != 1 {
		t.Errorf("list: %v, %v", r, err)
	}
	if r, err := c.ImageStatus(ctx, &cri.ImageStatusRequest{}); err != nil || r.Info["a"] != "b" {
		t.Errorf("status: %v, %v", r, err)
	}
	if _, err := c.RemoveImage(ctx, &cri.RemoveImageRequest{}); err == nil {
		t.Error("an error is not handed on")
	}
	if r, err := c.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{}); err != nil || len(r.ImageFilesystems) != 1 {
		t.Errorf("file systems: %v, %v", r, err)
	}
	stream, err := c.StreamImages(ctx, &cri.StreamImagesRequest{})
	n := 0
	for ; err == nil; n++ {
		_, err = stream.Recv()
	}
	if n != 3 || err.Error() != "EOF" {
		t.Errorf("%d answers, %v", n-1, err)
	}
}

// TestSecrets finds what each kind of credentials is, for the host that it is for and no other.
func TestSecrets(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte("user:secret"))
	for _, tt := range []struct {
		image        string
		auth         *cri.AuthConfig
		host, name   string
		user, secret string
	}{
		{"registry.example.com/app:1", &cri.AuthConfig{Auth: encoded}, "registry.example.com", "registry.example.com/app", "user", "secret"},
		{"registry.example.com/app@sha256:" + fmt.Sprintf("%064d", 1), &cri.AuthConfig{IdentityToken: "token"}, "registry.example.com", "registry.example.com/app", "", "token"},
		{"app", &cri.AuthConfig{Username: "user", Password: "secret"}, "registry-1.docker.io", "docker.io/library/app", "user", "secret"},
		{"registry.example.com/app:1", &cri.AuthConfig{Username: "user", Password: "secret"}, "mirror.example.com", "registry.example.com/app", "", ""},
		{"registry.example.com/app:1", &cri.AuthConfig{Username: "user", Password: "secret"}, "registry.example.com", "registry.example.com/other", "", ""},
		{"registry.example.com/app:1", &cri.AuthConfig{Username: "user", Password: "secret", ServerAddress: "https://other.example.com"}, "registry.example.com", "registry.example.com/app", "", ""},
		{"registry.example.com/app:1", &cri.AuthConfig{Auth: "no base64"}, "registry.example.com", "registry.example.com/app", "", ""},
		{"registry.example.com/app:1", nil, "registry.example.com", "registry.example.com/app", "", ""},
		{"no reference", &cri.AuthConfig{Username: "user", Password: "secret"}, "", "", "", ""},
	} {
		var s Secrets
		s.note(tt.image, tt.auth)
		if user, secret := s.Lookup(tt.host, tt.name); user != tt.user || secret != tt.secret {
			t.Errorf("%s with %v: %q and %q for %s at %s", tt.image, tt.auth, user, secret, tt.name, tt.host)
		}
	}
}

// TestSecretsBounded pulls from more repositories than are remembered.
func TestSecretsBounded(t *testing.T) {
	var s Secrets
	for i := range maxSecrets + 10 {
		s.note(fmt.Sprintf("registry.example.com/app%d", i), &cri.AuthConfig{Username: "user", Password: "secret"})
	}
	if len(s.known) != maxSecrets || len(s.order) != maxSecrets {
		t.Errorf("%d are remembered", len(s.known))
	}
}

// TestFailedPull has a pull fail: the credentials of the one before it count again.
func TestFailedPull(t *testing.T) {
	var s Secrets
	s.note("registry.example.com/app:1", &cri.AuthConfig{Username: "user", Password: "good"})
	undo := s.note("registry.example.com/app:1", &cri.AuthConfig{Username: "user", Password: "bad"})
	undo()
	if _, secret := s.Lookup("registry.example.com", "registry.example.com/app"); secret != "good" {
		t.Errorf("after a pull that failed: %q", secret)
	}
	undo = s.note("registry.example.com/app:1", &cri.AuthConfig{Username: "user", Password: "bad"})
	s.note("registry.example.com/app:1", &cri.AuthConfig{Username: "user", Password: "newer"})
	undo()
	if _, secret := s.Lookup("registry.example.com", "registry.example.com/app"); secret != "newer" {
		t.Errorf("a newer one is undone: %q", secret)
	}
}
