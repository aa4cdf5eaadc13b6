"""The tables of `test_numpy_functions`: expressions over named arrays, two spaces between them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import scipy.special

import staticgrad.numpy as snp
from staticgrad import nn

rng = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "x": rng.normal(size=(2, 3)), "y": rng.normal(size=(2, 3)), "f": rng.normal(size=(2, 3)).astype(np.float32),
    "m": rng.normal(size=(3, 2)), "q": rng.normal(size=(3, 3)), "v": rng.normal(size=3), "w": rng.normal(size=3),
    "t": rng.normal(size=(2, 3, 4)), "r": rng.normal(size=(4, 1, 3, 2)), "s": np.array(rng.normal()), "o": rng.normal(size=(2, 1)),
    "i": np.array([[3, -1, 2], [0, 5, -7]]), "h": np.array([[100, -100, 2], [0, 5, -7]], np.int8),
    "u": np.array([[3, 1, 2], [0, 5, 250]], np.uint8),
    "b": np.array([[True, False, True], [False, False, True]]), "c": np.array([True, True, True]), "z": np.zeros((0, 3)),
    "n": np.array([[1.0, np.nan, -np.inf], [np.inf, -0.0, 0.0]]), "p": np.array([[0.5, 2.0, 1.0], [0.1, 4.0, 3.0]]),
    "k": np.array([2, 0, 1]), "one": np.ones((1, 3, 1)),
}  # fmt: skip
SPACE = {"np": np, "snp": snp, "nn": nn, "special": scipy.special}

REDUCTIONS = """
np.sum(x)  np.sum(x,0)  np.sum(x,axis=-1)  np.sum(t,axis=(0,2))  np.sum(t,axis=(-1,0),keepdims=True)  np.sum(x,axis=())  np.sum(s)
np.sum(s,axis=0)  np.sum(s,axis=-1)  np.sum(s,axis=())  np.sum(f)  np.sum(f,dtype=np.float64)  np.sum(x,dtype=np.float32)  np.sum(i)
np.sum(h)  np.sum(u)  np.sum(b)  np.sum(b,axis=1)  np.sum(h,dtype=np.int8)  np.sum(i,dtype=float)  np.sum(b,dtype=bool,axis=0)  np.sum(z)
np.sum(z,axis=0)  np.sum(z,axis=1)  np.sum(x,initial=2.5)  np.sum(x,where=b)  np.sum(x,axis=1,where=b,initial=1)
np.sum(t,where=np.array([True,False,True,True]))  x.sum()  x.sum(1)  x.sum(axis=0,keepdims=True)  x.sum(0,np.float32)  np.add.reduce(x)
np.add.reduce(x,axis=None)  np.add.reduce(t,axis=(0,1),keepdims=True)  np.add.reduce(b)  np.prod(x)  np.prod(x,axis=1)  np.prod(h)
np.prod(u,axis=0)  np.prod(b)  np.prod(z)  np.prod(z,axis=0)  np.prod(f,keepdims=True)  np.prod(x,where=b,initial=3)  x.prod(0)
np.multiply.reduce(x)  np.prod(b,dtype=bool)  np.max(x)  np.max(x,axis=0)  np.max(t,axis=(0,-1))  np.max(n)  np.max(n,axis=0)  np.max(i)
np.max(h,axis=1)  np.max(u)  np.max(b)  np.max(s)  np.max(s,axis=0)  np.max(z,axis=1)  np.max(z,initial=1.5)  np.max(z,axis=0,initial=-1)
np.max(x,initial=0)  np.max(x,where=b,initial=-9)  np.max(x,axis=1,where=b,initial=0.0,keepdims=True)  np.max(x,axis=())  np.amax(x)
x.max()  x.max(axis=1,keepdims=True)  np.maximum.reduce(x)  np.maximum.reduce(x,axis=1)  np.min(x)  np.min(x,axis=-1)  np.min(n)
np.min(i,axis=0)  np.min(u)  np.min(b,axis=0)  np.min(x,where=b,initial=9)  np.min(z,axis=0,initial=np.inf)  np.amin(x)  x.min(0)
np.minimum.reduce(x)  np.ptp(x)  np.ptp(x,axis=1)  np.ptp(i,axis=0,keepdims=True)  np.argmax(x)  np.argmax(x,axis=0)
np.argmax(x,axis=-1,keepdims=True)  np.argmax(x,keepdims=True)  np.argmax(n)  np.argmax(n,axis=1)  np.argmax(i,axis=1)  np.argmax(b)
np.argmax(s)  np.argmax(s,axis=0)  np.argmax(z,axis=1)  x.argmax()  x.argmax(1)  np.argmin(x)  np.argmin(n,axis=0)  np.argmin(u,axis=1)
x.argmin(axis=0)  np.argmin(t,axis=1)  np.any(b)  np.any(b,axis=0)  np.any(x)  np.any(n,axis=1,keepdims=True)  np.any(z)
np.any(b,where=b)  x.any()  np.all(b)  np.all(b,axis=1)  np.all(x,axis=0)  np.all(n)  np.all(z,axis=0)  b.all(1)  np.all(b,where=b)
np.logical_and.reduce(b)  np.logical_or.reduce(b,axis=1)  np.logical_or.reduce(x,axis=None)  np.count_nonzero(i,axis=0)  np.mean(x)
np.mean(x,axis=0)  np.mean(t,axis=(0,2),keepdims=True)  np.mean(f)  np.mean(f,axis=1)  np.mean(i)  np.mean(h,axis=0)  np.mean(b)
np.mean(u,dtype=np.float32)  np.mean(i,dtype=int,axis=0)  np.mean(f,dtype=np.float64)  np.mean(s)  np.mean(z)  np.mean(z,axis=0)
np.mean(x,where=b)  np.mean(x,axis=1,where=b,keepdims=True)  np.mean(x,axis=1,where=~b&~b[:,::-1])  x.mean()  x.mean(1)
x.mean(axis=(0,1))  np.var(x)  np.var(x,axis=0)  np.var(x,axis=1,ddof=1)  np.var(x,axis=1,correction=1)
np.var(t,axis=(0,1),keepdims=True)  np.var(f)  np.var(i)  np.var(b,axis=0)  np.var(x,ddof=0.5)  np.var(o,axis=1,ddof=1)  np.var(x,where=b)
np.var(x,axis=1,mean=np.mean(x,axis=1,keepdims=True))  np.var(f,dtype=np.float64,axis=1)  x.var()  x.var(axis=1,ddof=1)  np.var(1e9+x)
np.var(s)  np.std(x)  np.std(x,axis=0,ddof=1)  np.std(f,axis=-1,keepdims=True)  np.std(i,axis=1)  np.std(o,axis=1)  np.std(n)  x.std()
x.std(0)  np.std(x,correction=1)  np.average(x)  np.average(x,axis=1)  np.average(x,weights=p)  np.average(x,axis=1,weights=v)
np.average(i,axis=0,weights=[1,2])  np.average(f,axis=0,weights=[1.0,3.0])  np.average(x,axis=0,weights=p,keepdims=True)
np.average(x,axis=1,weights=p,returned=True)  np.average(t,axis=(0,1),weights=p)  np.average(t,axis=(1,0),weights=m)  np.average(i)
"""

SHAPES = """
np.reshape(x,(3,2))  np.reshape(x,-1)  np.reshape(x,(3,-1))  np.reshape(x,(2,1,3))  np.reshape(x,6)  np.reshape(t,(4,-1),order='F')
np.reshape(x,(3,2),order='F')  np.reshape(s,(1,1))  np.reshape(z,(3,0))  x.reshape(3,2)  x.reshape((3,2))  x.reshape(-1)  x.reshape([6])
x.T.reshape(-1)  x.T.reshape(2,3)  x.reshape(3,2,order='F')  np.reshape(x,(6,),copy=True)  np.ravel(x)  np.ravel(x.T)  np.ravel(x,'F')
x.ravel()  x.ravel('A')  x.T.ravel('A')  x.T.ravel(order='K')  x.flatten()  x.T.flatten()  x.flatten('F')  s.ravel()  np.transpose(x)
np.transpose(t)  np.transpose(t,(1,2,0))  np.transpose(t,(-1,0,1))  x.T  t.mT  x.transpose()  t.transpose(2,0,1)  t.transpose((2,0,1))
x.transpose(None)  np.permute_dims(t,(1,0,2))  np.swapaxes(t,0,-1)  t.swapaxes(1,2)  np.moveaxis(t,0,-1)  np.moveaxis(t,[0,1],[-1,0])
np.moveaxis(t,(0,2),(1,0))  np.rollaxis(t,2)  np.rollaxis(t,0,3)  np.rollaxis(t,1,0)  np.matrix_transpose(t)  np.squeeze(one)
np.squeeze(one,0)  np.squeeze(one,axis=(0,-1))  one.squeeze()  one.squeeze(axis=2)  np.squeeze(s)  np.expand_dims(x,0)
np.expand_dims(x,-1)  np.expand_dims(x,(0,3))  np.expand_dims(s,0)  np.broadcast_to(v,(2,3))  np.broadcast_to(o,(2,3))
np.broadcast_to(s,(2,2))  np.broadcast_to(one,(2,3,4))  np.broadcast_to(v,3)  np.broadcast_arrays(x,v,s)  np.broadcast_arrays(o,v)
np.atleast_1d(s)  np.atleast_1d(x)  np.atleast_2d(s)  np.atleast_2d(v)  np.atleast_3d(s)  np.atleast_3d(v)  np.atleast_3d(x)
np.atleast_3d(t)  np.atleast_1d(s,v)  np.flip(x)  np.flip(x,0)  np.flip(t,(0,2))  np.fliplr(x)  np.flipud(x)  np.rot90(x)  np.rot90(x,2)
np.rot90(x,3)  np.rot90(t,1,(1,2))  np.rot90(x,4)  np.rot90(x,-1)  np.concatenate([x,y])  np.concatenate((x,y),axis=1)
np.concatenate([x,y],axis=None)  np.concatenate([x,f])  np.concatenate([i,h])  np.concatenate([x,[[1,2,3]]])
np.concatenate([f,[[1,2,3]]])  np.concatenate([b,u])  np.concatenate([x,y],dtype=np.float32)  np.concatenate([x,z])  np.concatenate(t)
np.concat([x,y],axis=-1)  np.concatenate([x])  np.stack([x,y])  np.stack([x,y],axis=-1)  np.stack([v,w],1)  np.stack([s,1.5,2])
np.stack([v,[1,2,3]])  np.stack(x)  np.vstack([v,w])  np.vstack([x,v])  np.hstack([x,y])  np.hstack([v,w])  np.hstack([s,v])
np.dstack([x,y])  np.dstack([v,w])  np.column_stack([v,w])  np.column_stack([v,m])  np.append(v,1.0)  np.append(x,y,axis=0)  np.split(v,3)
np.split(t,2,axis=2)  np.split(v,[1])  np.split(x,[1,1,5],axis=1)  np.array_split(v,2)  np.array_split(t,3,axis=-1)  np.hsplit(t,3)
np.hsplit(v,3)  np.vsplit(x,2)  np.dsplit(t,2)  np.pad(x,1)  np.pad(x,(1,2))  np.pad(x,((1,0),(0,2)))  np.pad(v,2,constant_values=7)
np.pad(x,1,constant_values=(1,2))  np.pad(x,((1,1),(2,0)),constant_values=((1,2),(3,4)))  np.pad(i,1,constant_values=1.7)  np.pad(x,0)
np.pad(x,((0,0),(1,1)),mode='constant')  np.pad(v,1,constant_values=s)  np.pad(z,1)  np.pad(b,1)  np.pad(v,[2])  np.pad(v,(1,))
np.roll(v,1)  np.roll(x,2)  np.roll(x,-1,axis=1)  np.roll(x,(1,1),axis=(0,1))  np.roll(x,5,0)  np.roll(z,1,0)  np.roll(x,1,(0,1))
np.repeat(x,2)  np.repeat(x,3,axis=0)  np.repeat(x,2,axis=-1)  v.repeat(2)  np.repeat(x,[2],axis=1)  np.repeat(s,3)  np.tile(v,2)
np.tile(v,(2,2))  np.tile(x,(2,1,3))  np.tile(t,2)  np.tile(s,3)  np.tril(q)  np.triu(q,1)  np.tril(t,-1)  np.triu(i)  np.triu(v)
np.diag(v)  np.diag(v,1)  np.diag(v,-2)  np.diag(q)  np.diag(x,1)  np.diag(x,-1)  np.diag(i[0])  np.diagonal(q)  np.diagonal(x,1)
np.diagonal(x,-1)  np.diagonal(x,9)  np.diagonal(t,0,1,2)  np.diagonal(t,1,2,0)  q.diagonal()  x.T.diagonal(-1)  np.trace(q)
np.trace(x,1)  np.trace(t,0,1,2)  np.trace(h)  q.trace()  np.diff(v)  np.diff(x,axis=0)  np.diff(t,n=2,axis=1)  np.diff(v,n=0)  np.diff(b)
np.diff(u)  np.diff(v,prepend=0)  np.diff(x,axis=1,append=x[:,:1])  np.diff(v,n=5)  np.diff(z,axis=0)
"""

PRODUCTS = """
x@m  m@x  v@w  x@v  v@m  q@q  t@np.ones((4,2))  r@x  x@r  t@r[:2,0,:1].swapaxes(-1,-2).repeat(2,1)  i@i.T  h@h.T  u@u.T  b@b.T  f@f.T  f@m
i@v  z@m  z.T@z  b@c  v@[1,2,3]  np.ones((2,2))@x  np.matmul(x,m)  np.matmul(v,w)  np.matmul(x,v)  np.matmul(r,x)
np.matmul(f,f.T,dtype=np.float64)  np.matmul(one,one.swapaxes(1,2))  np.linalg.matmul(x,m)
np.vecdot(x,y)  np.vecdot(t,t[:1])  np.matvec(q,x)  np.vecmat(v,m)  np.dot(x,m)  np.dot(v,w)  np.dot(x,v)
np.dot(v,m)  np.dot(s,x)  np.dot(x,2.0)  np.dot(f,2.0)  np.dot(s,s)  np.dot(t,np.outer(v,w).ravel()[:4])  np.dot(t,t.swapaxes(1,2))
x.dot(m)  np.dot(b,b.T)  np.dot(i,h.T)  np.dot(z,m)  np.vdot(x,y)  np.vdot(v,w)  np.inner(v,w)  np.inner(x,y)  np.inner(t,t)
np.inner(x,v)  np.inner(s,v)  np.outer(v,w)  np.outer(x,v)  np.outer(i,h)  np.outer(b,c)  np.outer(s,v)
np.tensordot(t,t.transpose(1,2,0))  np.tensordot(x,y)  np.tensordot(x,m,1)  np.tensordot(x,m,axes=([1],[0]))  np.tensordot(x,y,axes=(1,1))
np.tensordot(t,t,axes=([0,2],[0,2]))  np.tensordot(t,t,axes=((-1,0),(-1,0)))  np.tensordot(v,w,0)  np.tensordot(i,b,axes=(0,0))
np.multiply.outer(v,w)  np.add.outer(x,v)  np.subtract.outer(v,s)  np.maximum.outer(v,[1,2])  np.less.outer(v,w)
np.einsum('ij,jk->ik',x,m)  np.einsum('ij,jk',x,m)  np.einsum('ij->ji',x)  np.einsum('ji',x)  np.einsum('ij->',x)  np.einsum('ij->i',x)
np.einsum('ii',q)  np.einsum('ii->i',q)  np.einsum('i,i',v,w)  np.einsum('i,j->ij',v,w)  np.einsum('i,j->ji',v,w)
np.einsum('ij,ij->ij',x,y)  np.einsum('ij,ij->j',x,y)  np.einsum('ij,j->ij',x,v)  np.einsum('ij,i->j',x,o[:,0])
np.einsum('...j,jk->...k',t.swapaxes(1,2),m)  np.einsum('...ij,...j->...i',r,x[:,:2])  np.einsum('i...->...',t)  np.einsum('...',t)
np.einsum('...i->i...',t)  np.einsum('ij...,jk->ik...',x,q)  np.einsum('ij,jk,kl->il',x,q,m)  np.einsum('ij,jk,kl,lm->im',x,m,x,m)
np.einsum('i,i,i->i',v,w,v)  np.einsum('i,i,i->',v,w,v)  np.einsum('ij,k->',x,v)  np.einsum(',i->i',s,v)  np.einsum('i,->i',f[0],2.0)
np.einsum('ij,kj',x,y)  np.einsum('Ba,aB->',x,m)  np.einsum('Ba',x)  np.einsum('aB',x)  np.einsum(' i j , j k ',x,m)
np.einsum('iij->j',q[:,:,None]*v)  np.einsum('iji->j',q[:,None]*v[:,None])  np.einsum('ijk,ijk->k',t,t)  np.einsum('ij,ij->',i,h)
np.einsum('ij->',h)  np.einsum('ij,kj->ik',b,b)  np.einsum('ij->i',b)  np.einsum(x,[0,1],m,[1,2],[0,2])  np.einsum(x,[0,1],m,[1,2])
np.einsum(t,[Ellipsis,0],[0,Ellipsis])  np.einsum('ij,jk',o,m[:1])  np.einsum('ij,jk->ik',o,q)  np.einsum('ab,bc->ac',x,m,optimize=True)
np.einsum('ij,j->i',f,f[0],dtype=np.float64)  np.einsum('zj,jk->zk',z,m)  np.einsum('zj->j',z)  np.einsum('ii,jj->ij',q,q)
np.einsum('ii,i->',q,v)  np.einsum('...,...',x,v)  np.einsum('abc,acd,abd->bd',t,t.swapaxes(1,2),r[:2,0,:,:1]*np.ones(3))
np.linalg.norm(x)  np.linalg.norm(v)  np.linalg.norm(t)  np.linalg.norm(x,axis=0)  np.linalg.norm(x,axis=1,keepdims=True)
np.linalg.norm(t,axis=(0,2))  np.linalg.norm(x,'fro')  np.linalg.norm(v,1)  np.linalg.norm(v,np.inf)  np.linalg.norm(v,-np.inf)
np.linalg.norm(v,0)  np.linalg.norm(v,3)  np.linalg.norm(v,2.5)  np.linalg.norm(x,1)  np.linalg.norm(x,-1)  np.linalg.norm(x,np.inf)
np.linalg.norm(x,-np.inf,axis=(1,0))  np.linalg.norm(t,1,axis=(0,2))  np.linalg.norm(t,np.inf,axis=(2,0),keepdims=True)  np.linalg.norm(i)
np.linalg.norm(f,axis=1)  np.linalg.norm(x,2,axis=1)  np.linalg.norm(x,keepdims=True)  np.linalg.norm(b)  np.linalg.norm(s)
np.linalg.norm(0*v)  np.linalg.vector_norm(t)  np.linalg.vector_norm(t,axis=(0,2),ord=1)  np.linalg.matrix_norm(t)  np.linalg.outer(v,w)
np.linalg.vecdot(x,y)  np.linalg.solve(q,v)  np.linalg.solve(q,m)  np.linalg.solve(np.stack((q,q.T)),m)
np.linalg.solve(q,np.stack((m,m+1)))  np.linalg.solve(q.astype(np.float32),v)  np.linalg.solve([[2,1],[1,3]],o)  np.linalg.inv(q)
np.linalg.inv(np.stack((q,q.T)))  snp.linalg.solve([[s,1.0],[2.0,s]],[s,1.0])
np.linalg.matrix_power(q,3)  np.linalg.matrix_power(q,-2)  np.linalg.matrix_power(q,0)  np.linalg.cond(q)  np.linalg.cond(q,-2)
np.linalg.cond(q,1)  np.linalg.cond(0*q)  np.linalg.multi_dot([v,x.T,x,q])  np.linalg.multi_dot([x,q,q,v])  np.linalg.svdvals(x)
np.linalg.trace(t)  np.linalg.diagonal(t,offset=1)  np.linalg.tensorsolve(np.stack((q,q.T)).reshape(3,6)[:,:3],v)  np.linalg.tensorinv(q,1)
np.linalg.matrix_rank(v)  np.linalg.matrix_rank(0*v)  np.linalg.norm(x[:0],np.inf)  np.linalg.norm(x[:0],2)  np.linalg.pinv(x[:0])
np.linalg.cholesky(q@q.T)  np.linalg.cholesky(q@q.T,upper=True)  np.linalg.det(q)  np.linalg.det(np.eye(4)*s)
np.linalg.eigvalsh(q+q.T)  np.linalg.eigh(q+q.T)[0]  np.linalg.svd(x,compute_uv=False)  np.linalg.pinv(x)  np.linalg.matrix_rank(q)
np.linalg.lstsq(q,v)  np.linalg.norm(x,2)  np.linalg.norm(t,-2,axis=(0,2))  np.linalg.norm(t,'nuc',axis=(2,1),keepdims=True)
np.linalg.lstsq(x,v[:2])
np.linalg.slogdet(q)  np.linalg.qr(q)  np.linalg.qr(m,mode='r')  np.linalg.det(np.stack((q,q.T)).astype(np.float32))
np.linalg.matrix_transpose(t)  np.fft.fftshift(x)  np.fft.ifftshift(t,(0,-1))
"""

CHOICES = """
np.where(b,x,y)  np.where(x>0,x,0)  np.where(x>0,f,1.0)  np.where(b,i,h)  np.where(b,1,x)  np.where(i,x,y)  np.where(c,x,v)
np.where(x>0,1,2.0)  np.where(b[:,:1],x,s)  np.where(b,u,1)  np.where(True,x,1)  np.clip(x,-0.5,0.5)  np.clip(x,None,0.5)
np.clip(x,-0.5,None)  np.clip(x,None,None)  np.clip(x,y,y+1)  np.clip(x,0.5,-0.5)  np.clip(f,-0.5,0.5)  np.clip(i,-1,2)  np.clip(i,-0.5,2)
np.clip(u,-1,300)  np.clip(u,2,None)  np.clip(h,-10,10)  np.clip(n,-1,1)  np.clip(n,-1,None)  np.clip(x,v,1)  np.clip(x,min=0)
np.clip(x,max=0)  np.clip(x,min=0,max=1)  x.clip(0,1)  x.clip(0)  x.clip(max=0)  x.clip(min=-1,max=0.1)  np.clip(u,1,i)
np.clip(f,np.float64(0),1)  np.clip(2.0,x,y+3)  np.clip(b,0,1)  np.clip(b,False,True)  np.nan_to_num(n)
np.nan_to_num(n,nan=5,posinf=1,neginf=-2)  np.nan_to_num(i)  np.nan_to_num(f)  np.isclose(x,x+1e-9)  np.isclose(x,y)  np.isclose(n,n)
np.isclose(n,n,equal_nan=True)  np.isclose(i,i+1,rtol=0.3)  np.isclose(f,1)  np.allclose(x,x)  np.allclose(x,y)  np.array_equal(x,x)
np.array_equal(x,y)  np.array_equal(n,n)  np.array_equal(n,n,equal_nan=True)  np.array_equiv(x,x)
np.array_equiv(v,np.broadcast_to(v,(2,3)))  np.shape(x)  np.ndim(x)  np.size(x)  np.size(x,1)  np.result_type(f,1.0)  np.result_type(f,x)
np.can_cast(f,float)  np.iscomplexobj(x)  np.isrealobj(x)  np.real(x)  np.imag(x)  x.real  x.imag  np.empty_like(x,shape=(2,0))
np.unstack(x)  np.unstack(t,axis=-1)  np.shares_memory(x,x[0])  np.shares_memory(x,x.copy())  x.shape  x.size  x.ndim  len(x)  x.itemsize
x.nbytes  [a for a in x]  [a.shape for a in t]  x.dtype.name  x.astype(np.float32)  x.astype(int)  x.astype(bool)  f.astype(float)
i.astype(np.uint8)  i.astype('f4')  u.astype(np.int8)  b.astype(float)  x.astype(float,copy=False)  n.astype(bool)  h.astype(np.uint64)
x.copy()  np.copy(x)  i.conj()  x.conjugate()  np.zeros_like(x)  np.zeros_like(x,dtype=int)  np.zeros_like(x,shape=(4,))  np.ones_like(f)
np.ones_like(b)  np.ones_like(x,shape=2,dtype=bool)  np.full_like(x,3)  np.full_like(i,2.7)  np.full_like(x,s)  np.full_like(x,v)
np.full_like(u,3,dtype=float)  np.linspace(s,1.0,4)  np.linspace(0,s,5,endpoint=False)  np.linspace(v,w,3)  np.linspace(v,1,3,axis=-1)
np.linspace(s,2,1)  np.linspace(s,2,0)  np.linspace(v,w,3,retstep=True)  np.linspace(f[0],1,3)  np.linspace(s,9.5,4,dtype=int)
np.meshgrid(v,k)  np.meshgrid(v,w,indexing='ij')  np.meshgrid(v,w,k,sparse=True)  np.meshgrid(v)  np.reciprocal(x)  np.reciprocal(f)
special.expit(x)  special.expit(f)  special.xlogy(p-0.5,p)  special.xlogy(0*x,n)  special.xlog1py(x,p)  special.logit(p/5)
special.log1p(p)  special.expm1(x)  special.log_expit(x)
"""

NAMESPACE = """
snp.array([s,1.0])  snp.array([[s,1],[2,s*2]])  snp.array([v,w])  snp.array(x)  snp.array([v,[1,2,3]])  snp.array([s,s],dtype=np.float32)
snp.array([k[0],1])  snp.array(v,ndmin=3)  snp.array([[s],[1.0]])  snp.array([i[0],f[0]])  snp.array([True,b[0,0]])  snp.asarray([s,2])
snp.asarray(x)  snp.asarray(i,dtype=float)  snp.full(3,s)  snp.full((2,3),v)  snp.full(2,s,dtype=np.float32)  snp.zeros(3)+s
snp.zeros((2,3),int)+x  snp.ones(3,np.float32)*f  snp.empty((0,3))+x[:1]  snp.arange(3)*v  snp.eye(3)@v  snp.identity(3)*s
snp.linspace(0,1,3)*v  snp.stack([s,s*2,3.0])  snp.sum([s,v[0]])  snp.max([s,s+1,2.0])  snp.max([s,s*2],axis=0)  snp.concatenate([[s],v])
snp.where(s>0,[s,1],[2,s])  snp.r_[v,s,1:3]  snp.r_[0:1:3j,v]  snp.c_[v,w]  snp.c_[x,y]  snp.mean([s,1.0])  snp.dot([s,1.0,2.0],v)
snp.linalg.norm([s,1.0])  snp.sin(x)  snp.add(x,y)  snp.pi*x  snp.float32(2)*f  snp.einsum('i,i',[s,s],[1.0,2.0])  snp.hstack([[s],v])
snp.vstack([[s,s,s],v])  snp.array([])*s  snp.full_like(x,s)  snp.zeros_like(v)*s  snp.array(2.0)*f  snp.array([1,2,3])*v  snp.tri(3)*v
snp.copy(v)  snp.meshgrid([s,1.0],v)  snp.broadcast_to([s,s,s],(2,3))  snp.full((),2.0)*f  snp.geomspace(1,4,3)*v  snp.clip([s,s*9],-1,1)
snp.sum(x)  snp.reshape([s,s],(2,1))
"""

PICKING = """
np.take(x,[1,-1,0])  np.take(x,k,axis=1)  np.take(x,[[0,1],[1,0]],0)  np.take(v,k)  np.take(v,1)  np.take(v,i,mode='wrap')
np.take(v,i,mode='clip')  np.take(t,k,axis=-2)  np.take(x,[],axis=1)  np.take(s,0)  np.take(v,b)  snp.take(np.arange(4),k)  x.take(k,axis=1)
np.take_along_axis(x,np.argmin(x,axis=1,keepdims=True),1)  np.take_along_axis(t,np.argsort(t,axis=1),axis=1)  v.take(k)
np.take_along_axis(x,np.array([[0,1,0],[1,1,-1]]),0)  np.take_along_axis(x,k,None)  np.take_along_axis(o,np.array([[0,-1]]),1)
np.take_along_axis(t,k[None,:,None]*0,axis=0)  np.compress([True,False,True],x,axis=1)  np.compress([1,0,1,1],x)  x.compress([False,True],0)
np.extract([[1,0,1],[0,0,1]],x)  np.choose(k,[v,w,2.0])  np.choose(np.array([[0],[1]]),[x,v])  np.choose(i,[v,w],mode='clip')
np.choose(i,[v,w],mode='wrap')  k.choose([v,w,v])  v[k]  x[:,k]  x[[1,0]]  x[[1,0],k[:2]]  t[:,k,k]  t[k[:1]*0,:,k]  t[k[:2]*0,:,1]
x[[True,False]]  v[np.array([True,False,True])]  x[np.array([[True,False,True],[False,False,True]])]
t[...,[0,0],None]  v[k[0]]  x[k[1],k[2]]  t[1,:,k]  t[k[1]]
np.sort(x)  np.sort(x,0)  np.sort(x,axis=None)  np.sort(n)  np.sort(n,kind='stable')  np.sort(h)  np.sort(u,axis=0)  np.sort(b)
np.sort(f,stable=True)  np.sort(t,axis=1)  np.sort(z)  np.argsort(x)  np.argsort(x,axis=0)  np.argsort(i,None)  np.argsort(n,kind='stable')
x.argsort()  x.argsort(0)  np.partition(v,2)[2]  np.argpartition(v,0)[0]  v.argpartition(2)[2]  np.median(x)  np.median(x,axis=0)
np.median(x,axis=1,keepdims=True)  np.median(t,axis=(0,2))  np.median(n,axis=0)  np.median(i)  np.median(f)  np.median(b)
np.median(z,axis=0)  np.quantile(x,0.3)  np.quantile(x,[0,0.25,1],axis=1)
np.quantile(t,[[0.1],[0.9]],axis=(0,1),keepdims=True)  np.quantile(f,0.2)
np.quantile(f,[0.2,0.7])  np.quantile(i,0.4)  np.quantile(i,1)  np.quantile(n[0],0.5)  np.percentile(x,30)  np.percentile(f,[5,95],axis=0)
np.percentile(i,50,keepdims=True)  np.searchsorted(np.sort(v),x)  np.searchsorted(np.sort(v),x,side='right')
np.searchsorted(v,w,sorter=np.argsort(v))  np.searchsorted([0,1],x)  np.searchsorted(np.sort(v),0.5)
np.searchsorted(np.arange(4),f)  np.sort(v).searchsorted(w)
np.cumsum(x)  np.cumsum(x,axis=1)  np.cumsum(x,0)  np.cumsum(h,axis=1)  np.cumsum(u)  np.cumsum(b)  np.cumsum(f,dtype=float)  np.cumsum(s)
np.cumsum(z,axis=0)  x.cumsum()  x.cumsum(axis=-1)  np.add.accumulate(x)  np.add.accumulate(h,axis=1)
snp.take([s,s*2],[1,0,1])  snp.sort([s,v[0],1.0])
"""

NUMERICS = """
np.round(x)  np.round(x,2)  np.round(f,1)  np.round(x*100,-1)  np.round(i)  np.round(h,1)  np.round(h,-1)  np.round(u,-2)  np.around(x,3)
x.round()  x.round(1)  f.round(decimals=2)  np.round(n)  np.round(s,1)  round(v[0],2)  round(v[1])  round(f[0,1])  np.fix(x*3)  np.fix(f)
np.fix(i)  np.sinc(x)  np.sinc(f)  np.sinc(i)  np.sinc(n)  np.sinc(s)  np.sinc(w*[0.3,0,1e-9])  np.polyval(v,x)  np.polyval([1,2,3],x)
np.polyval(v,2.0)  np.polyval(k,i)  np.polyval(v[:0],x)  np.polyval(w,n)  np.polyval(q,v)  np.polyval([1.5,2],h)
np.interp(x,[-1.0,0.0,1.0],v)  np.interp(x,[-1.0,0.0,1.0],[1,2,0])  np.interp(s,[-1.0,1.0],[v[0],w[0]])
np.interp(n,[-1.0,0.0,2.0],v,left=-9,right=9.5)  np.interp(f,[0.0],[3.0])  np.interp(i,[0,2,4],k)
np.interp(p,[0.1,0.5,3.0,4.0],[1.0,2.0,3.0,5.0])  np.interp([0.0,1.5],v*v+[0,9,20],w)  np.ediff1d(x)  np.ediff1d(i)
np.ediff1d(v,to_end=[1,2.0])  np.ediff1d(v,to_begin=s,to_end=w)  np.ediff1d(z)  np.ediff1d(h,to_begin=7)  np.trapezoid(x)
np.trapezoid(x,axis=0)  np.trapezoid(x,dx=0.5)  np.trapezoid(x,v)  np.trapezoid(x,y,axis=1)  np.trapezoid(i)  np.trapezoid(f)
np.trapezoid(v,x=[0.0,1,4])  np.trapezoid(t,axis=-2,dx=s)  np.gradient(v)  np.gradient(x)  np.gradient(x,axis=1)  np.gradient(x,0.5)
np.gradient(x,0.5,2.0)  np.gradient(x,2.0,axis=0)  np.gradient(i)  np.gradient(f,axis=-1)  np.gradient(v,[0.0,1.0,4.0])
np.gradient(v,[0.0,1.0,2.0])  np.gradient(v,np.cumsum(np.ones(3))*2)  np.gradient(v,edge_order=2)  np.gradient(q,edge_order=2)
np.gradient(q,[0.0,1.0,4.0],1.0,edge_order=2)  np.gradient(q,v,w,edge_order=2)  np.gradient(t,axis=(0,2))
np.gradient(t,[1.0,3.0],0.1,axis=(0,2))  np.gradient(f,[0.0,0.5,2.0],axis=1)  np.gradient(u,axis=1)  np.nansum(n)  np.nansum(n,axis=0)
np.nansum(x)  np.nansum(n,axis=1,keepdims=True)  np.nansum(i)  np.nansum(f,dtype=np.float64)  np.nansum(n,where=b)  np.nansum(n,initial=2.0)
np.nanprod(n,axis=0)  np.nanprod(x)  np.nanprod(h)  np.nanmean(n)  np.nanmean(n,axis=0)  np.nanmean(x,axis=1)  np.nanmean(f)
np.nanmean(i,axis=0)  np.nanmean(n*np.nan,axis=1)  np.nanmean(n,axis=1,where=b)  np.nanvar(x)  np.nanvar(np.where(b,x,np.nan),axis=1)
np.nanvar(np.where(b,x,np.nan),axis=0)  np.nanvar(np.where(b,x,np.nan),axis=1,ddof=1)  np.nanvar(np.where(b,x,np.nan),axis=1,ddof=2)
np.nanvar(f,axis=0)  np.nanvar(i)  np.nanstd(np.where(b,x,np.nan))  np.nanstd(x,axis=0,ddof=1)  np.nanstd(np.where(b,f,f*np.nan),axis=1)
np.nanstd(x*np.nan,axis=0)  np.nanmax(n)  np.nanmax(n,axis=0)  np.nanmax(x,axis=1,keepdims=True)  np.nanmax(n*np.nan,axis=0)  np.nanmax(i)
np.nanmax(n,initial=-5.0)  np.nanmax(n,where=b,initial=0.0)  np.nanmin(n)  np.nanmin(n,axis=1)  np.nanmin(np.where(b,f,f*np.nan),axis=0)
np.nanmin(u,axis=0)  np.kron(x,y)  np.kron(v,w)  np.kron(x,v)  np.kron(s,x)  np.kron(x,t)  np.kron(i,h)  np.kron(np.eye(2),f)  np.cross(v,w)
np.cross(x,y)  np.cross(x,v)  np.cross(q,q[::-1])  np.cross(m,m[::-1],axis=0)  np.cross(m,x,axisa=0)  np.cross(x,y,axisc=0)  np.cross(i,x)
np.linalg.cross(x,y)  np.linalg.cross(m,m*2,axis=0)  np.block([[x,y],[y,x]])  np.block([x,o])  np.block([v,s,1.0])  np.block(x)
np.block([[q,v[:,None]],[w,s]])  np.block([[t,t],[t,t]])  np.block([[[s,v]]])  np.block([x[0],h[0]])  np.select([x>0.5,x<-0.5],[x,y],0.0)
np.select([b,~b],[x,i])  np.select([b],[f],1.5)  np.select([b,c],[s,v])  np.select([x>0,x>1],[1,2],3)  np.select([b[0],b[1]],[f,f],7)
np.divmod(i,2)  divmod(x,0.3)  np.divmod(x,y)  divmod(7,i)  x%y  x//y  i%3  i//3  -i//2  i%-3  h%7  u//3  7%p  7.5//p  f%0.25
f//np.float64(0.5)  x%np.inf  i<<2  u<<1  i>>1  2<<k  h>>u[0,1]  np.left_shift(i,k)  np.right_shift(h,1)  np.mod(x,y)  np.fmod(x,y)
np.fmod(i,2)  np.floor_divide(i,0)  np.remainder(n,2)  np.gcd(i,6)  np.lcm(i,h)  np.gcd(u,12)  np.ldexp(x,k)  np.ldexp(f,3)
np.copysign(x,y)  np.signbit(n)  np.signbit(i)  np.heaviside(x,0.5)  np.heaviside(n,v)  np.nextafter(x,y)  np.hypot(x,y)  np.arctan2(x,y)
np.logaddexp(x,y)  np.logaddexp2(x,y)  np.logaddexp.outer(v,w)  np.fmax(n,x)  np.fmin(n,x)  np.cbrt(x)  np.deg2rad(x)  np.rad2deg(f)
np.degrees(x)  np.radians(i)  np.exp2(x)  np.log2(p)  np.log10(p)  np.tan(x)  np.arcsin(x/9)  np.arccos(x/9)  np.arctan(x)  np.sinh(x)
np.cosh(x)  np.arcsinh(x)  np.arccosh(p+1)  np.arctanh(x/9)  np.ceil(x)  np.trunc(x)  np.rint(x)  np.ceil(i)  np.trunc(b)  np.reciprocal(x)
np.reciprocal(i)  np.reciprocal(f)  np.float_power(p,2)
"""

TABLE = [
    line
    for text in (REDUCTIONS, SHAPES, PRODUCTS, CHOICES, NAMESPACE, PICKING, NUMERICS)
    for row in text.splitlines()
    for line in row.split("  ")
    if line.strip()
]


def evaluate(text: str) -> tuple[Any, list[np.ndarray]]:
    """Return the expression as a function of the arrays it names, and these arrays."""
    names = [name for name in ARRAYS if re.search(rf"(?<![\w.'\"]){name}(?![\w'\"(=])", text)]
    function = eval(f"lambda {', '.join(names)}: {text.strip()}", SPACE)
    return function, [ARRAYS[name] for name in names]


IN_PLACE = ["copyto", "fill_diagonal", "put", "put_along_axis"]
"""Functions that write: they have tests of their own."""

# Misuse, and what the message must say: NumPy raises the same built-in exception.
ERRORS = r"""
np.sum(x,axis=2)                                       axis 2 .* dimension 2
np.sum(x,axis=(0,0))                                   duplicate
np.sum(x,axis=1.0)                                     integer
np.sum(x,axis=[0])                                     integer
np.sum(s,axis=1)                                       axis 1 .* dimension 0
np.sum(s,axis=(0,))                                    axis 0 .* dimension 0
np.mean(s,axis=0)                                      axis 0 .* dimension 0
np.max(z)                                              zero-size array .* maximum .*f64\[0,3\]
np.min(z,axis=0)                                       zero-size array .* minimum
np.max(np.zeros_like(x,shape=(0,0)),axis=0)            zero-size
np.max(x,where=b)                                      initial
np.argmax(z)                                           empty sequence
np.argmin(z,axis=0)                                    empty sequence
np.argmax(x,axis=(0,1))                                integer
np.sum(x,where=b[:,:2])                                \(2, 2\) .* \(2, 3\)
np.var(x,ddof=1,correction=1)                          together
np.average(x,weights=v)                                f64\[3\].*f64\[2,3\]
np.average(x,axis=0,weights=v)                         f64\[3\].*f64\[2,3\]
np.reshape(x,(4,2))                                    size 6 into shape \(4, 2\)
np.reshape(x,(4,-1))                                   size 6 into shape \(4, -1\)
np.reshape(x,(-1,-1))                                  one unknown
np.reshape(z,(0,-1))                                   size 0
np.reshape(x,(3.0,2))                                  integer
x.reshape(5)                                           np.reshape: .*size 6
np.transpose(x,(0,1,2))                                don't match
np.transpose(x,(0,0))                                  duplicate
np.transpose(x,(0,2))                                  axis 2
np.swapaxes(x,0,5)                                     axis2 5
np.moveaxis(t,(0,1),(0,))                              same
np.squeeze(x,0)                                        not 1
np.expand_dims(x,(0,0))                                duplicate
np.expand_dims(x,5)                                    axis 5
np.broadcast_to(x,(3,3))                               f64\[2,3\].*\(3, 3\)
np.broadcast_to(x,3)                                   f64\[2,3\].*\(3,\)
np.broadcast_arrays(x,m)                               f64\[2,3\], f64\[3,2\]
np.concatenate([x,m])                                  f64\[2,3\], f64\[3,2\]
np.concatenate([x,v])                                  same number of axes
np.concatenate([s,s])                                  zero-dimensional
np.concatenate([x,y],axis=2)                           axis 2
np.stack([x,m])                                        same shape
np.stack([x,y],axis=4)                                 axis 4
np.split(v,2)                                          does not divide
np.array_split(v,0)                                     larger than 0
np.pad(x,-1)                                           negative
np.pad(x,((1,1),(1,1),(1,1)))                          pad_width
np.pad(x,1,mode='constant',stat_length=2)              stat_length
np.roll(x,1,axis=2)                                    axis 2
np.diff(x,n=-1)                                        non-negative
np.diff(s)                                             at least one
np.diagonal(v)                                         f64\[3\]
np.trace(v)                                            f64\[3\]
np.diag(t)                                             f64\[2,3,4\]
np.repeat(x,-1)                                        negative
x@y                                                    matmul: f64\[2,3\] and f64\[2,3\]
x@s                                                    f64\[2,3\] and f64\[\]
np.matmul(x,2.0)                                       scalar
t@q                                                    f64\[2,3,4\] and f64\[3,3\]
t@r                                                    f64\[2,3,4\] and f64\[4,1,3,2\]
r@np.ones((3,2,2))@t                                   f64
np.dot(x,y)                                            f64\[2,3\] and f64\[2,3\]
np.dot(v,x)                                            f64\[3\] and f64\[2,3\]
np.inner(x,m)                                          f64\[2,3\] and f64\[3,2\]
np.vdot(x,v)                                           f64\[6\] and f64\[3\]
np.tensordot(x,m,2)                                    not aligned
np.tensordot(x,y,1)                                    not aligned
np.einsum('ij,jk',x,x)                                 'ij,jk'.*f64\[2,3\], f64\[2,3\].*'j' has length 3
np.einsum('ij,jk',x)                                   2 groups
np.einsum('ijk',x)                                     'ijk' names 3 axes
np.einsum('i',x)                                       'i' names 1 axes
np.einsum('ij->k',x)                                   'k'
np.einsum('ij->ii',x)                                  multiple
np.einsum('i1',x)                                      '1'
np.einsum('i-j',x)                                     '-'
np.einsum('ii',x)                                      'i'
np.einsum('...i->i',x)                                 \.\.\.
np.einsum('..i',x)                                     '\.'
np.einsum('i...j...',x)                                '\.'
np.linalg.norm(t,2)                                    improper
np.linalg.norm(x,3)                                    3
np.linalg.solve(x,v)                                   square
np.linalg.solve(q,o)                                   3 equations
np.linalg.solve(np.stack((q,q)),t[:,:,:2].repeat(2,0))   broadcast
np.linalg.inv(v)                                       square
np.linalg.norm(x,'bad')                                bad
np.linalg.norm(x,axis=(0,0))                           duplicate
np.linalg.norm(t,axis=(0,1,2))                         improper
x+m                                                    np.add: f64\[2,3\] and f64\[3,2\]
np.where(b,x,m)                                        np.where
np.where(b,x)                                          both x and y
np.clip(x,0,1,min=1)                                   a_min
np.linspace(s,1,-1)                                    -1
np.linspace(s,1,2.5)                                   integer
np.meshgrid(v,indexing='zz')                           indexing
np.zeros_like(x,shape=(-1,))                           negative
np.zeros_like(x,dtype='nonsense')                      nonsense
x.astype('nonsense')                                   nonsense
x.astype(int,casting='safe')                           safe
x.sum(nonsense=1)                                      nonsense
h+1000                                                 1000 .* int8
h&0.5                                                  bitwise_and .*i8
-b                                                     negative .*bool
b-b                                                    subtract .*bool
i**-1                                                  i64\[2,3\] .* -1
x.nonsense                                             nonsense
np.take(x,[0,9],axis=1)                                index 9 .*axis 1 .*size 3
np.take(x,k+0.5)                                       safe
np.take(x,3,axis=2)                                    axis 2
np.take(x,0,mode='nonsense')                           nonsense
np.take(z,0,axis=0)                                    empty
np.take_along_axis(x,k,1)                              same number
np.take_along_axis(x,np.zeros((3,1),int),1)            i64\[3,1\]
np.take_along_axis(x,np.full((2,1),3),1)               index 3 .*axis 1 .*size 3
np.compress([[True]],x)                                1-d
np.choose(k,[v,m])                                     broadcast
np.choose([0,5,1],[v,w])                               choice array.*index 5
np.sort(x,axis=2)                                      axis 2
np.sort(x,kind='nonsense')                             nonsense
np.sort(x,order='a')                                   fields
np.sort(s)                                             axis -1
np.partition(v,3)                                      kth
np.median(x,axis=2)                                    axis 2
np.quantile(x,1.5)                                     range
np.percentile(x,-1)                                    range
np.searchsorted(x,v)                                   one axis
np.searchsorted(v,x,side='both')                       both
np.cumsum(x,axis=2)                                    axis 2
v[[0,3]]                                               index 3 .*axis 0 .*size 3
x[:,k+0.5]                                             integer .*f64\[3\]
x[[0,1],[0,1,2]]                                       shape mismatch.*\(2,\) \(3,\)
x[k[:2],k]                                             shape mismatch
x[[True,False,True]]                                   axis 0; size of axis is 2 .*axis is 3
x[[0],[0],[0]]                                         too many
np.round(x,1.5)                                        integer
np.round(b,1)                                          bool\[2,3\]
round(x)                                               np.round
np.polyval(s,v)                                        one axis
np.interp(x,v,[1.0,2.0])                               same length
np.interp(x,v[:0],v[:0])                               empty
np.ediff1d(i,to_end=0.5)                               same_kind
np.gradient(x,1.0,2.0,3.0)                             3 spacings for 2 axes
np.gradient(x,edge_order=3)                            greater than 2
np.gradient(o,axis=1)                                  too small
np.gradient(v,[1.0,2.0])                               axis 0
np.select([b],[x,y])                                   2 and 1
np.select([i],[x])                                     boolean
np.block([[x],[]])                                     empty
np.block([[x],y])                                      depth
snp.block((x,y))                                       tuples
np.block([x,m])                                        f64\[2,3\], f64\[3,2\]
np.cross(v,[1.0])                                      3 components
np.nanmax(z)                                           zero-size
np.nanvar(x,ddof=1,correction=1)                       together
x%m                                                    np.remainder: f64\[2,3\] and f64\[3,2\]
x<<1                                                   left_shift .*f64
np.gcd(x,2)                                            gcd .*f64
np.ldexp(x,y)                                          ldexp .*f64
""".strip().splitlines()

# What is missing, and what the message must say.
UNSUPPORTED = {
    "np.cumprod(v)": "cumsum", "np.lexsort((v,))": "argsort", "np.unique(v)": "sort", "np.nanmedian(v)": "median",
    "np.linalg.eig(q)": "linalg.eigh",
    "np.pad(v,1,mode='edge')": "edge", "np.modf(v)": "trunc", "np.spacing(v)": "nextafter",
    "np.piecewise(v,[v>0],[1.0])": "select", "np.interp(v,w,w,period=1.0)": "remainder",
    "np.multiply.accumulate(v)": "add.accumulate", "np.quantile(v,v)": "known", "np.quantile(v,0.5,method='lower')": "lower",
    "x[b]": "np.where", "x[:,c]": "np.where", "np.compress(c,v)": "np.where", "np.extract(b,x)": "np.where",
    "np.subtract.reduce(v)": "np.add.reduce",
    "np.repeat(v,[1,2,3])": "repeats", "special.ellipk(v)": "scipy.special.ellipk", "x.cumprod()": "cumsum", "x.flags": "flags",
    "np.fft.fft(v)": "np.fft.fft",
    "special.jv(1,v)": "scipy.special.jv", "np.reshape(t.swapaxes(0,1),-1,order='K')": "order", "x.view(np.int64)": "view",
}  # fmt: skip
