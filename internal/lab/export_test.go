package lab

// Abandon leaves a lab as a process that is killed does.
func (l *Lab) Abandon() error { return l.lock.Close() }
