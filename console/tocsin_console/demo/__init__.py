"""The servers that the demo and the tests talk to: throw-away certificates, a mail sink and a token endpoint.

certificates     a certificate authority that signs one server certificate and is forgotten
mail_sink        an SMTP server that checks XOAUTH2 tokens, takes mail and records it
sink_session     one connection to it
sink_script      what it is told to answer, to whom and how often
token_endpoint   an OAuth 2.0 token endpoint whose tokens the sink knows
token_grant      what that decides about a request
servers          sink and endpoint in a process of their own, which ends with the one that started it
"""
