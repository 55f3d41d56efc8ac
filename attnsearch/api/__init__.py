"""The verbs as Python functions: each does all the computing and returns a table.

Arguments are named as the options of the command line, which parses, calls one of these and prints.
"""
