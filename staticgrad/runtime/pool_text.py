"""The thread pool's machine code, as LLVM text: what runs the blocks of parallel kernels.

    parallel_for(task, blocks, arguments, workspace, context)     any thread calls it; returns when all blocks are done
    worker(nothing)                                               what the pool's threads run until they are to stop

One job runs at a time. A caller that finds the pool taken runs its blocks itself, in order, and so does a block that calls
`parallel_for`, as its context has none. The caller takes part in its own job; workers join in under the mutex as long as the job is
open and not full, and the caller waits for those that did: a worker that wakes too late holds nobody up. Blocks are handed out by
a counter. Each block that fails notes so in a context of its own, and of the failures of a job the one of the lowest block is
passed on: so neither results nor failures depend on who ran what.
"""

from __future__ import annotations

import platform
import re

SYMBOLS = ("sg_parallel_for", "sg_worker", "sg_pool")

POOL_BYTES = 1024

PLACES = {
    "mutex": 0, "work": 128, "done": 256,  # of the C library: the lock, and what workers and callers wait for
    "busy": 384,  # 1 while a job is under way
    "generation": 448,  # the number of jobs so far
    "next": 512,  # the next block
    "finished": 576,  # the workers that joined in and are through
    # under the mutex: whether workers may join in, how many did, how many may, how many sleep, whether the caller does, the end of all
    "open": 640, "joined": 648, "limit": 656, "sleeping": 664, "waiting": 672, "stop": 680,
    "task": 704, "blocks": 712, "arguments": 720, "workspace": 728, "user": 736,  # the job
    "failed": 768, "failure": 776,  # the lowest block that failed, and its failure: code, node, index
}  # fmt: skip
"""Where the pool's memory, `sg_pool`, holds what the text calls by these names."""

SPINS = 1000
"""So often a thread looks for what it waits for, some 20 microseconds, before it goes to sleep."""

PAUSE = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}

TEXT = """
@sg_pool = global [@BYTES@ x i8] zeroinitializer, align 64

declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
@DECLARATION@

define void @sg_parallel_for(ptr %task, i64 %blocks, ptr %arguments, ptr %workspace, ptr %context) nounwind {
entry:
  %slots_at = getelementptr i64, ptr %context, i64 5
  %slots = load i64, ptr %slots_at
  %several = icmp sgt i64 %slots, 1
  br i1 %several, label %try, label %serial
try:
  %taken = cmpxchg ptr @busy, i64 0, i64 1 acquire monotonic
  %mine = extractvalue { i64, i1 } %taken, 1
  br i1 %mine, label %share, label %serial

serial:
  %block = phi i64 [ 0, %entry ], [ 0, %try ], [ %following, %serial ]
  call void %task(ptr %arguments, ptr %workspace, ptr %context, i64 %block)
  %following = add i64 %block, 1
  %more = icmp slt i64 %following, %blocks
  br i1 %more, label %serial, label %return

share:
  store ptr %task, ptr @task
  store i64 %blocks, ptr @blocks
  store ptr %arguments, ptr @arguments
  store ptr %workspace, ptr @workspace
  %user_at = getelementptr i64, ptr %context, i64 6
  %user = load i64, ptr %user_at
  store i64 %user, ptr @user
  store i64 9223372036854775807, ptr @failed
  store atomic i64 0, ptr @next monotonic, align 8
  store atomic i64 0, ptr @finished monotonic, align 8
  %fewer = icmp slt i64 %slots, %blocks
  %threads = select i1 %fewer, i64 %slots, i64 %blocks
  %helpers = sub i64 %threads, 1
  call i32 @pthread_mutex_lock(ptr @mutex)
  store i64 0, ptr @joined
  store i64 %helpers, ptr @limit
  store i64 1, ptr @open
  %job = load atomic i64, ptr @generation monotonic, align 8
  %new_job = add i64 %job, 1
  store atomic i64 %new_job, ptr @generation release, align 8
  %sleeping = load i64, ptr @sleeping
  %few_sleep = icmp slt i64 %sleeping, %helpers
  %calls = select i1 %few_sleep, i64 %sleeping, i64 %helpers
  br label %wake
wake:
  %left = phi i64 [ %calls, %share ], [ %rest, %call ]
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %call, label %begin
call:
  call i32 @pthread_cond_signal(ptr @work)
  %rest = sub i64 %left, 1
  br label %wake
begin:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  call void @run_blocks()
  call i32 @pthread_mutex_lock(ptr @mutex)
  store i64 0, ptr @open
  %joined = load i64, ptr @joined
  call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %spin

spin:
  %spins = phi i64 [ 0, %begin ], [ %spun, %again ]
  %finished = load atomic i64, ptr @finished acquire, align 8
  %through = icmp eq i64 %finished, %joined
  br i1 %through, label %close, label %again
again:
  @PAUSE@
  %spun = add i64 %spins, 1
  %patient = icmp slt i64 %spun, @SPINS@
  br i1 %patient, label %spin, label %sleep
sleep:
  call i32 @pthread_mutex_lock(ptr @mutex)
  store i64 1, ptr @waiting
  br label %check
check:
  %finished_now = load atomic i64, ptr @finished acquire, align 8
  %through_now = icmp eq i64 %finished_now, %joined
  br i1 %through_now, label %awake, label %wait
wait:
  call i32 @pthread_cond_wait(ptr @done, ptr @mutex)
  br label %check
awake:
  store i64 0, ptr @waiting
  call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %close

close:
  %failed = load i64, ptr @failed
  %any = icmp ne i64 %failed, 9223372036854775807
  %noted = load i64, ptr %context
  %first = icmp eq i64 %noted, 0
  %pass_on = and i1 %any, %first
  br i1 %pass_on, label %fail, label %release
fail:
  %failure = load [3 x i64], ptr @failure
  store [3 x i64] %failure, ptr %context
  br label %release
release:
  store atomic i64 0, ptr @busy release, align 8
  br label %return
return:
  ret void
}

define internal void @run_blocks() nounwind {
entry:
  %context = alloca [8 x i64], align 64
  store [8 x i64] zeroinitializer, ptr %context
  %user_at = getelementptr i64, ptr %context, i64 6
  %user = load i64, ptr @user
  store i64 %user, ptr %user_at
  %task = load ptr, ptr @task
  %blocks = load i64, ptr @blocks
  %arguments = load ptr, ptr @arguments
  %workspace = load ptr, ptr @workspace
  br label %take
take:
  %block = atomicrmw add ptr @next, i64 1 monotonic
  %more = icmp slt i64 %block, %blocks
  br i1 %more, label %run, label %return
run:
  call void %task(ptr %arguments, ptr %workspace, ptr %context, i64 %block)
  %code = load i64, ptr %context
  %good = icmp eq i64 %code, 0
  br i1 %good, label %take, label %note
note:
  call i32 @pthread_mutex_lock(ptr @mutex)
  %failed = load i64, ptr @failed
  %lower = icmp slt i64 %block, %failed
  br i1 %lower, label %keep, label %forget
keep:
  store i64 %block, ptr @failed
  %failure = load [3 x i64], ptr %context
  store [3 x i64] %failure, ptr @failure
  br label %forget
forget:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  store i64 0, ptr %context
  br label %take
return:
  ret void
}

define ptr @sg_worker(ptr %nothing) nounwind {
entry:
  br label %idle
idle:
  %seen = phi i64 [ -1, %entry ], [ %job, %late ], [ %job, %leave ]
  br label %spin
spin:
  %spins = phi i64 [ 0, %idle ], [ %spun, %again ]
  %present = load atomic i64, ptr @generation acquire, align 8
  %new = icmp ne i64 %present, %seen
  br i1 %new, label %lock, label %again
again:
  @PAUSE@
  %spun = add i64 %spins, 1
  %patient = icmp slt i64 %spun, @SPINS@
  br i1 %patient, label %spin, label %sleep
sleep:
  call i32 @pthread_mutex_lock(ptr @mutex)
  br label %check
check:
  %present_now = load atomic i64, ptr @generation acquire, align 8
  %new_now = icmp ne i64 %present_now, %seen
  br i1 %new_now, label %look, label %wait
wait:
  %asleep = load i64, ptr @sleeping
  %more_asleep = add i64 %asleep, 1
  store i64 %more_asleep, ptr @sleeping
  call i32 @pthread_cond_wait(ptr @work, ptr @mutex)
  %still_asleep = load i64, ptr @sleeping
  %less_asleep = sub i64 %still_asleep, 1
  store i64 %less_asleep, ptr @sleeping
  br label %check
lock:
  call i32 @pthread_mutex_lock(ptr @mutex)
  br label %look
look:
  %stop = load i64, ptr @stop
  %goes_on = icmp eq i64 %stop, 0
  br i1 %goes_on, label %decide, label %end
end:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  ret ptr null
decide:
  %job = load atomic i64, ptr @generation monotonic, align 8
  %open = load i64, ptr @open
  %joined = load i64, ptr @joined
  %limit = load i64, ptr @limit
  %room = icmp slt i64 %joined, %limit
  %is_open = icmp ne i64 %open, 0
  %joins = and i1 %room, %is_open
  br i1 %joins, label %join, label %late
late:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %idle
join:
  %more_joined = add i64 %joined, 1
  store i64 %more_joined, ptr @joined
  call i32 @pthread_mutex_unlock(ptr @mutex)
  call void @run_blocks()
  call i32 @pthread_mutex_lock(ptr @mutex)
  %finished = load atomic i64, ptr @finished monotonic, align 8
  %more_finished = add i64 %finished, 1
  store atomic i64 %more_finished, ptr @finished release, align 8
  %waiting = load i64, ptr @waiting
  %nobody = icmp eq i64 %waiting, 0
  br i1 %nobody, label %leave, label %tell
tell:
  call i32 @pthread_cond_signal(ptr @done)
  br label %leave
leave:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %idle
}
"""


def pool_text() -> str:
    """Return the text for this machine."""
    pause = PAUSE.get(platform.machine())
    text = TEXT.replace("@BYTES@", str(POOL_BYTES)).replace("@SPINS@", str(SPINS))
    text = text.replace("@DECLARATION@", f"declare void @{pause}()" if pause else "")
    text = text.replace("@PAUSE@", f"call void @{pause}()" if pause else "; no instruction says that this thread only waits")
    for name, place in PLACES.items():
        text = re.sub(rf"ptr @{name}\b", f"ptr getelementptr (i8, ptr @sg_pool, i64 {place})", text)
    return text
