"""From templates and data to the octets of a message. No I/O anywhere: the same inputs give the same octets.

    compile_message ─► MessageTemplate.render ─► RenderedMessage ─► compose ─► octets for DATA
                    └► MessageFiller.fill ─► FilledMessage ─► Composer.compose ─► octets for DATA

The second line is for many messages of one job: what they share is made once. It gives the same octets.

A template that cannot be rendered raises RenderingError, which blames one message: it fails that recipient
(or, in shared mode, that job) with a reason and nothing else. Templates are written by people whom an
installation lets publish; fuel and output limits guard the workers against their mistakes. They are no prison
for an attacker: text that doubles itself often enough can still use up a process's memory before its length
is looked at.
"""
