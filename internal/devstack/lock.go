package devstack

import (
	"fmt"
	"os"
	"syscall"
)

// Lock waits for the file's exclusive lock. The system releases it when the
// process ends.
func Lock(path string) (unlock func(), err error) {
	file, err := flock(path, syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

func flock(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	for {
		err = syscall.Flock(int(file.Fd()), how)
		if err != syscall.EINTR { //nolint:errorlint // Flock returns an unwrapped errno
			break
		}
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}

// Lease waits for the file's shared lock, and holds it until release is called or the process ends.
func Lease(path string) (release func(), err error) {
	file, err := flock(path, syscall.LOCK_SH)
	if err != nil {
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

// TryLock takes the file's exclusive lock. It returns false if a process has a lock or lease of it.
func TryLock(path string) (unlock func(), ok bool) {
	file, err := flock(path, syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		return nil, false
	}
	return func() { _ = file.Close() }, true
}
