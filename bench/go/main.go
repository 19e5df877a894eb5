// The workloads in Go. Called and answering as the programs in src/bin do; see src/lib.rs.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	unequalGoroutines = 64
	burstsOfUnequal   = unequalGoroutines * (unequalGoroutines + 1) / 2
	stepsOfJob        = 32
	stagesOfPipeline  = 8
	limitOfJobs       = 4
	jobsOfBurst       = 5
	goroutinesOfPool  = 4
	actorsNumber      = 16
	actorsClients     = 64
	lettersOfBurst    = 20
	oneOfWrites       = 100
	keysOfMap         = 1000
	nearNodes         = 1000
	rpcServers        = 8
	rpcClients        = 64
	crowdSize         = 100
	echoBuffer        = 1024
	hogComputes       = 200 * time.Millisecond
	hogPauses         = 300 * time.Millisecond
)

var (
	workload string
	n        uint64 = 1
	parties  uint64 = 8
	quick    bool
	cores    = runtime.NumCPU()
)

func report(row string, value float64) {
	fmt.Printf("%s go %.3f\n", row, value)
}

func check(right bool) {
	if !right {
		panic("wrong result")
	}
}

// elapsed warms up with a tenth, then measures work(n); small sizes are repeated until the clock can tell.
func elapsed(work func(uint64)) float64 {
	if !quick {
		work(max(n/10, 1))
	}
	start := time.Now()
	for times := 1; ; times++ {
		work(n)
		if passed := time.Since(start); quick || passed >= 100*time.Millisecond {
			return float64(passed.Nanoseconds()) / float64(times)
		}
	}
}

func each(work func(uint64)) {
	report(workload, elapsed(work)/float64(n))
}

func whole(work func(uint64)) {
	report(workload, elapsed(work))
}

func wholeCold(work func(uint64)) {
	start := time.Now()
	work(n)
	report(workload, float64(time.Since(start).Nanoseconds()))
}

func share(work func(n, iterations uint64)) {
	rate := machineRate()
	iterations := uint64(rate / float64(cores) * 100e-6)
	start := time.Now()
	work(n, iterations)
	done := n * burstsOfUnequal * iterations
	seconds := time.Since(start).Seconds()
	// What else runs can only make a calibration worse.
	rate = max(rate, machineRate())
	report(workload, float64(done)/seconds/rate)
}

func mix(n uint64) uint64 {
	z := (n + 1) * 0x9E3779B97F4A7C15
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
	z = (z ^ (z >> 27)) * 0x94D049BB133111EB
	return z ^ (z >> 31)
}

var seed atomic.Uint64

func compute(iterations uint64) {
	x := seed.Load() | 88172645463325252
	for range iterations {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	if x == 0 {
		seed.Store(1)
	}
}

func computeFor(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
		compute(1000)
	}
}

func machineRate() float64 {
	const step = 100_000
	rates := make(chan float64)
	for range cores {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			compute(step)
			done := 0
			start := time.Now()
			for time.Since(start) < 100*time.Millisecond {
				compute(step)
				done += step
			}
			rates <- float64(done) / time.Since(start).Seconds()
		}()
	}
	sum := 0.0
	for range cores {
		sum += <-rates
	}
	return sum
}

func nthPrime(n uint64) uint64 {
	var primes []uint64
	for candidate := uint64(2); uint64(len(primes)) < n; candidate++ {
		prime := true
		for _, p := range primes {
			if p*p > candidate {
				break
			}
			if candidate%p == 0 {
				prime = false
				break
			}
		}
		if prime {
			primes = append(primes, candidate)
		}
	}
	return primes[n-1]
}

// resident memory and page tables, in bytes.
func resident() float64 {
	status, err := os.ReadFile("/proc/self/status")
	check(err == nil)
	sum := 0.0
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS:") || strings.HasPrefix(line, "VmPTE:") {
			kib, err := strconv.ParseFloat(strings.Fields(line)[1], 64)
			check(err == nil)
			sum += kib
		}
	}
	return sum * 1024
}

func spawn(n uint64) {
	var all sync.WaitGroup
	all.Add(int(n))
	for range n {
		go func() { all.Done() }()
	}
	all.Wait()
}

func spawnOne(n uint64) {
	results := make(chan uint64)
	sum := uint64(0)
	for k := range n {
		go func() { results <- k }()
		sum += <-results
	}
	check(sum == n*(n-1)/2)
}

func pingpong(n uint64) {
	there, back := make(chan uint64), make(chan uint64)
	go func() {
		for k := range there {
			back <- k + 1
		}
	}()
	k := uint64(0)
	for range n {
		there <- k
		k = <-back
	}
	close(there)
	check(k == n)
}

func stream(capacity int) func(uint64) {
	return func(n uint64) {
		numbers := make(chan uint64, capacity)
		go func() {
			for k := range n {
				numbers <- k
			}
			close(numbers)
		}()
		sum := uint64(0)
		for k := range numbers {
			sum += k
		}
		check(sum == n*(n-1)/2)
	}
}

func mpmc(n uint64) {
	numbers, sums := make(chan uint64, 64), make(chan uint64)
	each := n / parties
	var senders sync.WaitGroup
	for range parties {
		senders.Go(func() {
			for k := range each {
				numbers <- k
			}
		})
		go func() {
			sum := uint64(0)
			for k := range numbers {
				sum += k
			}
			sums <- sum
		}()
	}
	senders.Wait()
	close(numbers)
	sum := uint64(0)
	for range parties {
		sum += <-sums
	}
	check(each == 0 || sum == parties*(each*(each-1)/2))
}

func selects(n uint64) {
	left, right, quit := make(chan uint64), make(chan uint64), make(chan struct{})
	var senders sync.WaitGroup
	for _, side := range []chan uint64{left, right} {
		senders.Go(func() {
			for k := range n / 2 {
				side <- k
			}
		})
	}
	go func() {
		senders.Wait()
		close(quit)
	}()
	sum, half := uint64(0), n/2
	for {
		select {
		case k := <-left:
			sum += k
		case k := <-right:
			sum += k
		case <-quit:
			check(half == 0 || sum == half*(half-1))
			return
		}
	}
}

func crowd(work func()) {
	var all sync.WaitGroup
	for range crowdSize {
		all.Go(work)
	}
	all.Wait()
}

func mutex(n uint64) {
	var lock sync.Mutex
	counter := uint64(0)
	crowd(func() {
		for range n / crowdSize {
			lock.Lock()
			counter++
			lock.Unlock()
		}
	})
	check(counter == n/crowdSize*crowdSize)
}

func yields(n uint64) {
	crowd(func() {
		for range n / crowdSize {
			runtime.Gosched()
		}
	})
}

func sieve(n uint64) {
	numbers, quit := make(chan uint64), make(chan struct{})
	go func() {
		for k := uint64(2); ; k++ {
			select {
			case numbers <- k:
			case <-quit:
				close(numbers)
				return
			}
		}
	}()
	received, last := numbers, uint64(0)
	for range n {
		prime := <-received
		last = prime
		from, passed := received, make(chan uint64)
		go func() {
			for k := range from {
				if k%prime != 0 {
					passed <- k
				}
			}
			close(passed)
		}()
		received = passed
	}
	check(last == nthPrime(n))
	// The chain ends by itself, outside the measured work.
	go func() {
		for range received {
		}
	}()
	close(quit)
}

type request struct {
	k     uint64
	reply chan uint64
}

func rpc(n uint64) {
	requests := make(chan request)
	for range rpcServers {
		go func() {
			for r := range requests {
				r.reply <- r.k + 1
			}
		}()
	}
	var clients sync.WaitGroup
	for range rpcClients {
		clients.Go(func() {
			reply := make(chan uint64)
			for k := range n / rpcClients {
				requests <- request{k, reply}
				check(<-reply == k+1)
			}
		})
	}
	clients.Wait()
	close(requests)
}

func skynet(n uint64) {
	result := make(chan uint64)
	go node(result, 0, n)
	check(<-result == n*(n-1)/2)
}

func node(result chan uint64, first, size uint64) {
	if size == 1 {
		result <- first
		return
	}
	results := make(chan uint64)
	for child := range uint64(10) {
		go node(results, first+child*(size/10), size/10)
	}
	sum := uint64(0)
	for range 10 {
		sum += <-results
	}
	result <- sum
}

func chain(n uint64) {
	last := make(chan uint64)
	left := last
	for range n {
		right := make(chan uint64)
		go func(left, right chan uint64) { left <- 1 + <-right }(left, right)
		left = right
	}
	go func() { left <- 0 }()
	check(<-last == n)
}

func parked() {
	closed := make(chan struct{})
	var waiting, ended sync.WaitGroup
	before := resident()
	waiting.Add(int(n))
	ended.Add(int(n))
	start := time.Now()
	for range n {
		go func() {
			waiting.Done()
			<-closed
			ended.Done()
		}()
	}
	waiting.Wait()
	report("parked.create", float64(time.Since(start).Nanoseconds())/float64(n))
	report("parked.bytes", (resident()-before)/float64(n))
	start = time.Now()
	close(closed)
	ended.Wait()
	report("parked.wake", float64(time.Since(start).Nanoseconds())/float64(n))
}

// Arms a timer and takes it back, beside others that are pending.
func timers() {
	far := func(k uint64) time.Duration { return time.Hour + time.Duration(mix(k)%3_600_000_000_000) }
	var others []*time.Timer
	for _, pending := range []int{0, 100_000, 1_000_000} {
		for k := len(others); k < pending; k++ {
			others = append(others, time.AfterFunc(far(uint64(k)), func() {}))
		}
		start := time.Now()
		for k := range n {
			if !time.AfterFunc(far(k), func() {}).Stop() {
				panic("fired")
			}
		}
		report(fmt.Sprintf("timer.%d", pending), float64(time.Since(start).Nanoseconds())/float64(n))
	}
}

func sleepers(n uint64) {
	var all sync.WaitGroup
	all.Add(int(n))
	for k := range n {
		go func() {
			time.Sleep(time.Duration(mix(k) % 1_000_000_000))
			all.Done()
		}()
	}
	all.Wait()
}

func unequal(n, iterations uint64) {
	var all sync.WaitGroup
	for units := range uint64(unequalGoroutines) {
		all.Go(func() {
			for range (units + 1) * n {
				compute(iterations)
				runtime.Gosched()
			}
		})
	}
	all.Wait()
}

func bursts(n, iterations uint64) {
	var all sync.WaitGroup
	for units := range uint64(unequalGoroutines) {
		all.Go(func() {
			for range (units + 1) * n {
				done := make(chan struct{})
				go func() {
					compute(iterations)
					close(done)
				}()
				<-done
			}
		})
	}
	all.Wait()
}

func arrivals(n, iterations uint64) {
	jobs := make(chan uint64, 1)
	go func() {
		for job := range n * burstsOfUnequal {
			jobs <- job
			runtime.Gosched()
		}
		close(jobs)
	}()
	var all sync.WaitGroup
	for range jobs {
		all.Go(func() {
			for range uint64(stepsOfJob) {
				compute(iterations / stepsOfJob)
				runtime.Gosched()
			}
		})
	}
	all.Wait()
}

func pool(n, iterations uint64) {
	jobs, done := make(chan uint64), make(chan uint64)
	var all sync.WaitGroup
	for range goroutinesOfPool {
		all.Go(func() {
			for job := range jobs {
				compute(iterations)
				done <- job
			}
		})
	}
	jobsInAll := n * burstsOfUnequal
	go func() {
		for job := range jobsInAll {
			jobs <- job
		}
		close(jobs)
		all.Wait()
		close(done)
	}()
	var sum uint64
	for job := range done {
		sum += job
	}
	check(sum == jobsInAll*(jobsInAll-1)/2)
}

func forks(n, iterations uint64) {
	for range n * burstsOfUnequal {
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { compute(iterations / 2) })
		}
		both.Wait()
	}
}

func limited(n, iterations uint64) {
	alive := make(chan uint64, limitOfJobs)
	for range n * burstsOfUnequal * jobsOfBurst {
		alive <- 0
		go func() {
			compute(iterations / jobsOfBurst)
			<-alive
		}()
	}
	// Until all have left.
	for range limitOfJobs {
		alive <- 0
	}
}

func stages(n, iterations uint64) {
	received := make(chan uint64, 16)
	first := received
	go func() {
		for item := range n * burstsOfUnequal * stepsOfJob / stagesOfPipeline {
			first <- item
		}
		close(first)
	}()
	for range stagesOfPipeline {
		stage, passed := received, make(chan uint64, 16)
		go func() {
			for item := range stage {
				compute(iterations / stepsOfJob)
				passed <- item
			}
			close(passed)
		}()
		received = passed
	}
	for range received {
	}
}

func actors(n, iterations uint64) {
	boxes := make([]chan chan uint64, actorsNumber)
	for k := range boxes {
		received := make(chan chan uint64, 4)
		boxes[k] = received
		go func() {
			for reply := range received {
				compute(iterations / lettersOfBurst)
				reply <- 1
			}
		}()
	}
	var all sync.WaitGroup
	each := n * burstsOfUnequal * lettersOfBurst / actorsClients
	for client := range uint64(actorsClients) {
		all.Go(func() {
			reply := make(chan uint64)
			for k := range each {
				boxes[(client+k)%actorsNumber] <- reply
				<-reply
			}
		})
	}
	all.Wait()
	for _, letters := range boxes {
		close(letters)
	}
}

func graph(n uint64) {
	var done []chan struct{}
	var all sync.WaitGroup
	for node := range n {
		ready := make(chan struct{})
		var before []chan struct{}
		for k := range min(2, node) {
			before = append(before, done[node-1-mix(2*node+k)%min(node, nearNodes)])
		}
		all.Go(func() {
			for _, other := range before {
				<-other
			}
			close(ready)
		})
		done = append(done, ready)
	}
	all.Wait()
}

func readers(n uint64) {
	values := make(map[uint64]uint64)
	for key := range uint64(keysOfMap) {
		values[key] = 0
	}
	var lock sync.RWMutex
	var all sync.WaitGroup
	for party := range uint64(crowdSize) {
		all.Go(func() {
			for k := range n / crowdSize {
				key := mix(party<<32|k) % keysOfMap
				if k%oneOfWrites == 0 {
					lock.Lock()
					values[key]++
					lock.Unlock()
				} else {
					lock.RLock()
					check(values[key] <= n)
					lock.RUnlock()
				}
			}
		})
	}
	all.Wait()
}

func loopback(n uint64) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err == nil)
	defer listener.Close()
	var all sync.WaitGroup
	all.Go(func() {
		connection, err := listener.Accept()
		check(err == nil)
		answer(connection)
	})
	connection, err := net.Dial("tcp", listener.Addr().String())
	check(err == nil)
	buffer := make([]byte, 64)
	line := make([]byte, 64)
	for k := range n {
		for at := range line {
			line[at] = byte(k)
		}
		_, err := connection.Write(line)
		check(err == nil)
		_, err = io.ReadFull(connection, buffer)
		check(err == nil && bytes.Equal(line, buffer))
	}
	connection.Close()
	all.Wait()
}

func echo(hog bool) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err == nil)
	go func() {
		for {
			connection, err := listener.Accept()
			check(err == nil)
			go answer(connection)
		}
	}()
	if hog {
		go func() {
			for {
				time.Sleep(hogPauses)
				computeFor(hogComputes)
			}
		}()
	}
	fmt.Println(listener.Addr())
	io.Copy(io.Discard, os.Stdin)
}

func answer(connection net.Conn) {
	defer connection.Close()
	buffer := make([]byte, echoBuffer)
	for {
		length, err := connection.Read(buffer)
		if err != nil {
			return
		}
		if _, err := connection.Write(buffer[:length]); err != nil {
			return
		}
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: go WORKLOAD --n N [--workers W] [--parties P] [--quick]")
	os.Exit(64)
}

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	workload = os.Args[1]
	for k := 2; k < len(os.Args); k++ {
		if os.Args[k] == "--quick" {
			quick = true
			continue
		}
		if k+1 == len(os.Args) {
			usage()
		}
		value, err := strconv.ParseUint(os.Args[k+1], 10, 63)
		if err != nil {
			usage()
		}
		switch os.Args[k] {
		case "--n":
			n = value
		case "--workers":
			runtime.GOMAXPROCS(int(value))
		case "--parties":
			parties = value
		default:
			usage()
		}
		k++
	}
	switch workload {
	case "spawn":
		each(spawn)
	case "spawn_one":
		each(spawnOne)
	case "pingpong":
		each(pingpong)
	case "unbuffered":
		each(stream(0))
	case "buffered":
		each(stream(128))
	case "mpmc":
		each(mpmc)
	case "select":
		each(selects)
	case "mutex":
		each(mutex)
	case "yield":
		each(yields)
	case "sieve":
		whole(sieve)
	case "rpc":
		each(rpc)
	case "skynet":
		whole(skynet)
	case "chain":
		each(chain)
	case "parked":
		parked()
	case "timer":
		timers()
	case "sleepers":
		wholeCold(sleepers)
	case "unequal":
		share(unequal)
	case "bursts":
		share(bursts)
	case "arrivals":
		share(arrivals)
	case "pool":
		share(pool)
	case "forks":
		share(forks)
	case "limited":
		share(limited)
	case "stages":
		share(stages)
	case "actors":
		share(actors)
	case "graph":
		each(graph)
	case "readers":
		each(readers)
	case "loopback":
		each(loopback)
	case "echo":
		echo(false)
	case "hog":
		echo(true)
	default:
		fmt.Fprintf(os.Stderr, "go has no workload %s\n", workload)
		os.Exit(69)
	}
}
