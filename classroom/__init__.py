"""A class: one lab for each student of a roster, from one stack file as the template.

What is here plans (`roster`, `subnets`, `template`, `bill`, `planning`), keeps what was given to whom
(`register`), and runs the command `nestlab` once for each student (`work`, `progress`). It makes nothing
itself: a student's lab is a stack like another, whose file could have been written by hand, so that
locks, recovery, refusals and the question about losses are those of `nestlab up`.
"""
