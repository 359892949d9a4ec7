/* queue_replay.h: `flue queue replay DIR [--to URL]`: what was set aside is sent again.
 *
 * URL is by default http://127.0.0.1:4318 for OTLP and http://127.0.0.1:4040 for pprof.
 *
 * DIR is the dead-letter folder of a queue (pipeline/deadletter.c). Every letter is posted as it
 * stands to the receiver of a running flue, OTLP to URL/v1development/profiles, /v1/traces or
 * /v1/metrics by its signal, pprof to URL/push.v1.PusherService/Push, for the tenant that it came
 * from, and removed when it was taken. What is refused stays. It then takes the usual way through
 * pipelines and queues: every exporter of the pipeline gets it, not only the one that refused it.
 */
#ifndef FLUE_COMMANDS_QUEUE_REPLAY_H
#define FLUE_COMMANDS_QUEUE_REPLAY_H

/* `to`: NULL for the defaults. The exit status: failed when a letter is left. */
int flue_queue_replay(const char *directory, const char *to);

#endif
